"""The Secrets with certificates."""

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
    assert (found.credentials, found.authorities, found.mistakes) == (None, "", ())


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


def test_one_secret_may_hold_all_keys(authority: Authority) -> None:
    member = {"peerSecret": "all", "serverSecret": "all"}
    cluster = blueprint({"TLS": {"static": {"member": member, "operatorSecret": "all"}}})
    whole: dict[str, bytes] = {}
    for layout in LAYOUTS.values():
        whole |= secret(authority, layout).data
    assert certificates(cluster, {"all": Secret(data=whole)}).mistakes == ()
    missing = certificates(cluster, {"all": None}).mistakes
    assert {each.secret for each in missing} == {"all"}
