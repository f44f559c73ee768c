"""The pages of docs/howto/etcd: manifests are valid, commands are real, and reasons exist."""

import json
import re
import shlex
import subprocess
from typing import Any

import msgspec
import pytest
import yaml

from devcluster import etcd_images
from devcluster.folders import CHECKOUT
from etcd_operator import pages
from etcd_operator.certificates import OPERATOR, PEER, SERVER
from etcd_operator.etcd import CLIENT_PORT
from etcd_operator.model import Record
from etcd_operator.reasons import REASONS
from etcd_operator.types import EtcdCluster
from etcd_operator.validation import judge
from etcd_operator.versions import FLOORS, NEWEST
from pilothouse import __version__
from pilothouse.packaging.documents import dump
from tests.etcd_howto import FOLDER, PAGES, commands, manifests
from tests.unit.etcd.manifests import secure
from tests.unit.release.test_links import anchors

PROGRAMS = {
    "./inv",
    "kubectl",
    "etcdctl",
    "etcdutl",
    "etcd",
    "for",
    "done",
    "MEMBER=$(kubectl",
    "REVISION=$(kubectl",
}
INDEX = (CHECKOUT / "docs" / "howto" / "README.md").read_text()


def clusters(page: str) -> list[dict[str, Any]]:
    return [each for each in manifests(page) if each["kind"] == "EtcdCluster"]


@pytest.mark.parametrize("page", PAGES)
def test_the_clusters_are_valid_and_have_only_known_fields(page: str) -> None:
    for body in clusters(page):
        cluster = msgspec.convert(body, EtcdCluster)
        assert judge(cluster, Record()).mistakes == ()
        assert msgspec.to_builtins(cluster.spec).keys() >= body["spec"].keys()


@pytest.mark.parametrize("page", PAGES)
def test_the_index_has_every_page(page: str) -> None:
    assert f"(etcd/{page})" in INDEX


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_are_complete_and_their_json_is_valid(page: str) -> None:
    for line in commands(page):
        words = shlex.split(line.removesuffix("&"))
        assert words[0] in PROGRAMS, line
        for word in words:
            if word.startswith("{") and not word.startswith("{."):
                json.loads(word)


@pytest.mark.parametrize("page", PAGES)
def test_the_patches_leave_the_cluster_valid(page: str) -> None:
    for line in commands(page):
        words = shlex.split(line)
        if words[:3] == ["kubectl", "patch", "etcdcluster"] and "--subresource=status" not in words:
            body = {"spec": {"size": 3, **json.loads(words[-1])["spec"]}}
            named = {"metadata": {"name": words[3]}, **body}
            cluster = msgspec.convert(named, EtcdCluster)
            assert judge(cluster, Record()).mistakes == (), line


@pytest.mark.parametrize("page", PAGES)
def test_a_shell_understands_the_commands(page: str) -> None:
    for line in "\n".join(commands(page)).split("\0"):
        done = subprocess.run(
            ["sh", "-n"], input=line, capture_output=True, text=True, check=False, timeout=10
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES)
def test_the_reasons_in_tables_exist(page: str) -> None:
    # test_validation.py checks the warnings.
    text = (FOLDER / page).read_text().partition("\n## Warnings\n")[0]
    rows = re.findall(r"^\| `([A-Z][A-Za-z]+[a-z][A-Z]\w+)` \|", text, re.M)
    assert {*rows} <= {*REASONS, "Ready"} | {"Available", "Progressing"}


def test_the_page_of_tls_names_every_key() -> None:
    page = (FOLDER / "tls.md").read_text()
    assert all(f"`{key}`" in page for layout in (PEER, SERVER, OPERATOR) for key in layout)


def test_the_page_of_tls_names_the_files_in_the_pod() -> None:
    page = (FOLDER / "tls.md").read_text()
    pod = secure()[-1]
    mounts = {each["name"]: each["mountPath"] for each in pod["spec"]["containers"][0]["volumeMounts"]}
    secrets = {each["secret"]["secretName"]: mounts[each["name"]] for each in pod["spec"]["volumes"][1:]}
    fields = {"peers": "member.peerSecret", "servers": "member.serverSecret", "operator": "operatorSecret"}
    assert secrets.keys() == fields.keys()
    for secret, folder in secrets.items():
        assert f"| `{fields[secret]}` | `{folder}` |" in page
    _, command = commands("tls.md", "Connect with TLS")[-2:]
    flags = dict(each.split("=") for each in command.split() if each.startswith("--") and "=" in each)
    files = {"--cacert": OPERATOR.ca, "--cert": OPERATOR.certificate, "--key": OPERATOR.key}
    used = {flag: f"{secrets['operator']}/{file}" for flag, file in files.items()}
    assert flags == {"--endpoints": f"https://localhost:{CLIENT_PORT}", **used}


def test_the_page_of_upgrades_has_the_newest_versions_and_the_floors() -> None:
    page = (FOLDER / "upgrade.md").read_text()
    assert all(str(minor) in page for minor in NEWEST)
    assert all(f"below {floor}" in page for floor in FLOORS.values())


def test_the_page_of_recovery_names_the_versions_that_it_was_tried_with() -> None:
    tried = (FOLDER / "recover.md").read_text().partition("\n## How these commands were tried\n")[2]
    *others, newest = etcd_images.versions()[1:]
    assert f"with etcd {', '.join(others)} and {newest}" in tried


def test_the_urls_in_messages_lead_to_headings_of_the_pages_in_the_package_s_repository() -> None:
    base = CHECKOUT / "config" / "etcd" / "manifests" / "bases" / "pilothouse-etcd.clusterserviceversion.yaml"
    annotations = yaml.safe_load(base.read_text())["metadata"]["annotations"]
    tree = f"{annotations['repository']}/blob/v{__version__}/"
    urls = {url for name, url in vars(pages).items() if name.isupper()} - {pages.HOWTO}
    assert len(urls) > 5
    for url in urls:
        assert url.startswith(tree)
        path, _, anchor = url.removeprefix(tree).partition("#")
        assert not anchor or anchor in anchors((CHECKOUT / path).read_text()), url


def test_the_pods_meet_the_restricted_standard() -> None:
    for body in manifests("recover.md"):
        if body["kind"] == "Pod":
            spec = body["spec"]
            assert spec["securityContext"]["runAsNonRoot"], dump(body)
            for container in (*spec.get("initContainers", ()), *spec["containers"]):
                context = container["securityContext"]
                assert context == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
