"""The Secrets with certificates."""

from collections.abc import Callable
from pathlib import Path

import pytest

from etcd_operator.certificates import OPERATOR, PEER, SERVER, Layout, certificates, secrets_of
from pilothouse import ObjectMeta
from pilothouse.views import Secret
from tests.unit.etcd.manifests import SECURE, blueprint
from tests.unit.kube.authority import Authority

CLUSTER = blueprint(SECURE)
LAYOUTS = {"peers": PEER, "servers": SERVER, "operator": OPERATOR}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def secret(authority: Authority, layout: Layout, **changed: bytes | None) -> Secret:
    certificate, key = authority.issue("member")
    files: tuple[Path, ...] = (authority.ca_file, certificate, key)
    data = {name: path.read_bytes() for name, path in zip(layout, files, strict=True)}
    for part, value in changed.items():
        name = getattr(layout, part)
        if value is None:
            del data[name]
        else:
            data[name] = value
    return Secret(metadata=ObjectMeta(), data=data)


@pytest.fixture
def secrets(authority: Authority) -> dict[str, Secret | None]:
    return {name: secret(authority, layout) for name, layout in LAYOUTS.items()}


def test_the_operator_connects_with_its_secret(
    authority: Authority, secrets: dict[str, Secret | None]
) -> None:
    assert [*secrets_of(CLUSTER)] == [*LAYOUTS]
    found = certificates(CLUSTER, secrets)
    assert found.mistakes == ()
    assert found.credentials
    assert found.credentials.ca == authority.ca_file.read_text()
    assert "PRIVATE KEY" in found.credentials.key
    assert "PRIVATE KEY" not in repr(found)


def test_without_tls_there_is_nothing_to_read() -> None:
    found = certificates(blueprint({}), {})
    assert (found.credentials, found.authorities, found.mistakes) == (None, frozenset(), ())


def test_without_tls_for_clients_there_are_no_credentials(secrets: dict[str, Secret | None]) -> None:
    cluster = blueprint({"TLS": {"static": {"member": {"peerSecret": "peers"}}}})
    found = certificates(cluster, secrets)
    assert (found.credentials, found.mistakes) == (None, ())
    assert found.authorities


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_missing_secret_is_named(name: str, secrets: dict[str, Secret | None]) -> None:
    layout = LAYOUTS[name]
    [mistake] = certificates(CLUSTER, {**secrets, name: None}).mistakes
    assert (mistake.secret, mistake.key) == (name, "")
    assert mistake.message == (
        f"Secret {name} does not exist. Create it with the keys {layout.certificate}, {layout.key}, "
        f"{layout.ca}."
    )


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("part", ["ca", "certificate", "key"])
@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (None, "does not exist"),
        (b" \n", "is empty"),
        (b"something", "in PEM format"),
        (b"\xff\xfe", "in PEM format"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n\xff", "in PEM format"),
    ],
)
def test_an_unusable_key_is_named(
    name: str,
    part: str,
    value: bytes | None,
    complaint: str,
    authority: Authority,
    secrets: dict[str, Secret | None],
) -> None:
    secrets[name] = secret(authority, LAYOUTS[name], **{part: value})
    found = certificates(CLUSTER, secrets)
    assert found.credentials is None
    [mistake] = found.mistakes
    key = getattr(LAYOUTS[name], part)
    assert (mistake.secret, mistake.key) == (name, key)
    assert mistake.message.startswith(f"Key {key} of Secret {name} ")
    assert complaint in mistake.message


def test_a_renewed_certificate_is_not_a_changed_authority(
    authority: Authority, secrets: dict[str, Secret | None], tmp_path: Path
) -> None:
    before = certificates(CLUSTER, secrets)
    secrets["operator"] = secret(authority, OPERATOR)
    renewed = certificates(CLUSTER, secrets)
    assert renewed.authorities == before.authorities
    assert renewed.credentials != before.credentials
    secrets["peers"] = secret(Authority(tmp_path), PEER)
    assert certificates(CLUSTER, secrets).authorities != before.authorities


@pytest.mark.parametrize(
    "rewritten",
    [
        lambda one, two: two + b"\n" + one,
        lambda one, two: one + two + one,
        lambda one, two: b"# The first one\n" + one + b"\n# The second one\n\n" + two + b"\n\n",
        lambda one, two: (one + two).replace(b"\n", b"\r\n"),
    ],
    ids=["reordered", "repeated", "comments", "line ends"],
)
def test_a_rewritten_bundle_has_the_same_authorities(
    rewritten: Callable[[bytes, bytes], bytes],
    authority: Authority,
    secrets: dict[str, Secret | None],
    tmp_path: Path,
) -> None:
    one, two = authority.ca_file.read_bytes(), Authority(tmp_path).ca_file.read_bytes()
    secrets["peers"] = secret(authority, PEER, ca=one + two)
    before = certificates(CLUSTER, secrets)
    secrets["peers"] = secret(authority, PEER, ca=rewritten(one, two))
    after = certificates(CLUSTER, secrets)
    assert (after.authorities, after.mistakes) == (before.authorities, ())
    assert sorted(each.partition(":")[0] for each in after.authorities) == [
        "peer-ca.crt",
        "peer-ca.crt",
        "server-ca.crt",
    ]


def test_the_members_do_not_read_the_authorities_of_the_operator(
    secrets: dict[str, Secret | None], tmp_path: Path
) -> None:
    before = certificates(CLUSTER, secrets)
    secrets["operator"] = secret(Authority(tmp_path), OPERATOR)
    after = certificates(CLUSTER, secrets)
    assert after.authorities == before.authorities
    assert after.credentials != before.credentials


def test_an_added_authority_is_a_further_one(
    authority: Authority, secrets: dict[str, Secret | None], tmp_path: Path
) -> None:
    before = certificates(CLUSTER, secrets).authorities
    both = authority.ca_file.read_bytes() + Authority(tmp_path).ca_file.read_bytes()
    secrets["peers"] = secret(authority, PEER, ca=both)
    assert certificates(CLUSTER, secrets).authorities > before


def test_one_secret_may_hold_all_keys(authority: Authority) -> None:
    member = {"peerSecret": "all", "serverSecret": "all"}
    cluster = blueprint({"TLS": {"static": {"member": member, "operatorSecret": "all"}}})
    whole: dict[str, bytes] = {}
    for layout in LAYOUTS.values():
        whole |= secret(authority, layout).data
    assert certificates(cluster, {"all": Secret(data=whole)}).mistakes == ()
    missing = certificates(cluster, {"all": None}).mistakes
    assert {each.secret for each in missing} == {"all"}
