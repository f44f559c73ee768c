from ipaddress import IPv4Network
from pathlib import Path

import pytest

from devcluster import addresses, cluster, folders
from devcluster.shell import ClusterError


def test_a_cluster_whose_network_is_in_use_can_be_stopped_and_reset_but_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[tuple[str, IPv4Network]] = []
    stopped: list[cluster.Cluster] = []
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("PILOTHOUSE_SUBNET", raising=False)
    monkeypatch.setattr(addresses, "_networks_in_use", lambda: used)
    monkeypatch.setattr("devcluster.checks.check_user", lambda: None)
    monkeypatch.setattr("devcluster.checks.check_resources", lambda: None)
    monkeypatch.setattr("devcluster.checks.check_kernel", lambda: None)
    monkeypatch.setattr(cluster, "_is_current", lambda _: False)
    monkeypatch.setattr(cluster, "_steps", lambda _: [])
    monkeypatch.setattr(cluster, "_stop", stopped.append)
    first = cluster.up()
    used.append(("vpn0", first.addresses.subnet))

    with pytest.raises(ClusterError, match=r"now also in use on vpn0\. .*'\./inv cluster\.reset'"):
        cluster.up()
    cluster.down()
    second = cluster.reset()

    assert stopped == [first, first]
    assert second.state == first.state == folders.clusters() / folders.cluster_id()
    assert not second.addresses.subnet.overlaps(first.addresses.subnet)
