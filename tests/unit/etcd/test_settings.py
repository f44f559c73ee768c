"""The settings of the etcd operator, and that its process can start."""

import subprocess
import sys

import pytest

from etcd_operator.settings import EtcdSettings
from etcd_operator.types import EtcdClusterSpec
from pilothouse import SettingsError
from pilothouse.process.flags import settings


def test_each_setting_is_documented() -> None:
    assert [each.name for each in settings(EtcdSettings)] == ["ETCD_POLL_PERIOD"]


def test_the_process_shows_its_flags() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "etcd_operator", "--help"],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "--etcd-poll-period" in done.stdout


def test_related_images_replace_those_of_the_default_repository() -> None:
    image = "quay.io/coreos/etcd@sha256:0"
    loaded = EtcdSettings.load({"RELATED_IMAGE_ETCD_3_6_14": image, "RELATED_IMAGE_ETCD_3_5_0": ""})
    assert loaded.image(EtcdClusterSpec(size=3), "3.6.14") == image
    assert loaded.image(EtcdClusterSpec(size=3, repository="quay.io/coreos/etcd"), "3.6.14") == image
    assert loaded.image(EtcdClusterSpec(size=3), "3.5.0") == "quay.io/coreos/etcd:v3.5.0"
    assert loaded.image(EtcdClusterSpec(size=3, repository="mine/etcd"), "3.6.14") == "mine/etcd:v3.6.14"


def test_a_wrong_period_is_refused() -> None:
    assert EtcdSettings.load({"ETCD_POLL_PERIOD": "1m"}).poll == 60
    with pytest.raises(SettingsError, match="ETCD_POLL_PERIOD"):
        EtcdSettings.load({"ETCD_POLL_PERIOD": "soon"})
