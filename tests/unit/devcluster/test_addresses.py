import shutil
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devcluster import addresses, folders
from devcluster.addresses import Addresses, choose
from devcluster.shell import ClusterError

IDS = st.integers(0, (1 << 24) - 1).map(lambda number: f"{number:06x}")


@given(IDS)
def test_a_free_machine_gives_every_id_a_network_clear_of_pods_and_services(identity: str) -> None:
    network = choose(identity, [])
    assert network.prefixlen == 24
    assert not network.overlaps(addresses.POD_NETWORK)
    assert not network.overlaps(addresses.SERVICE_NETWORK)
    assert network == choose(identity, [])


@given(IDS, st.integers(1, 20))
def test_taken_networks_are_not_chosen(identity: str, clusters: int) -> None:
    taken: list[IPv4Network] = []
    for _ in range(clusters):
        network = choose(identity, taken)
        assert not any(network.overlaps(other) for other in taken)
        taken.append(network)


def test_without_a_free_network_the_error_names_the_variable() -> None:
    with pytest.raises(ClusterError, match=r"Set PILOTHOUSE_SUBNET to a free one"):
        choose("00ff00", [IPv4Network("10.0.0.0/8")])


def test_a_requested_network_is_used_if_it_is_free() -> None:
    assert choose("00ff00", [IPv4Network("10.0.0.0/8")], "192.168.77.0/24") == IPv4Network("192.168.77.0/24")


@pytest.mark.parametrize(
    ("wish", "reason"),
    [
        ("here", "is not a network"),
        ("172.20.0.0/25", "not a /24"),
        ("10.96.4.0/24", "overlaps 10.96.0.0/16"),
        ("10.244.0.0/24", "overlaps 10.244.0.0/16"),
        ("192.168.1.0/24", "overlaps 192.168.0.0/16"),
    ],
)
def test_an_unusable_requested_network_is_refused_with_the_reason(wish: str, reason: str) -> None:
    with pytest.raises(ClusterError, match=reason):
        choose("00ff00", [IPv4Network("192.168.0.0/16")], wish)


@given(IDS, st.integers(0, 99))
def test_names_fit_the_kernel_and_addresses_the_network(identity: str, index: int) -> None:
    own = Addresses(identity, choose(identity, []))
    assert len(own.link(index)) <= 15  # IFNAMSIZ without the terminating zero.
    assert own.node(index) in own.subnet
    assert own.node(index) != own.host


def test_checkouts_have_different_ids() -> None:
    assert folders.cluster_id(Path("/a")) != folders.cluster_id(Path("/b"))


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, IPv4Network]]:
    """The interfaces of an invented host, and an empty state folder."""
    used: list[tuple[str, IPv4Network]] = [("lo", IPv4Network("127.0.0.0/8"))]
    monkeypatch.setattr(addresses, "_networks_in_use", lambda: used)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("PILOTHOUSE_SUBNET", raising=False)
    return used


def test_addresses_are_kept(host: list[tuple[str, IPv4Network]]) -> None:
    state = folders.clusters() / "0a0b0c"
    first = addresses.load_or_choose("0a0b0c", state)
    host.append((first.bridge, first.subnet))  # The cluster is up: its own bridge does not conflict.
    assert addresses.load_or_choose("0a0b0c", state) == first


def test_two_clusters_with_ids_for_the_same_network_get_different_ones(
    host: list[tuple[str, IPv4Network]],
) -> None:
    first = addresses.load_or_choose("000001", folders.clusters() / "000001")
    twin = addresses.load_or_choose("004001", folders.clusters() / "004001")
    assert choose("000001", []) == choose("004001", [])
    assert not first.subnet.overlaps(twin.subnet)
    shutil.rmtree(folders.clusters())


def test_a_recorded_network_that_is_now_used_elsewhere_is_refused(
    host: list[tuple[str, IPv4Network]],
) -> None:
    state = folders.clusters() / "0a0b0c"
    first = addresses.load_or_choose("0a0b0c", state)
    host.append((first.link(0), first.subnet))
    addresses.check_free(first)
    host.append(("vpn0", first.subnet))
    with pytest.raises(ClusterError, match=r"vpn0.*cluster\.reset"):
        addresses.check_free(first)
    assert addresses.load_or_choose("0a0b0c", state) == first  # `down` must still find it.
