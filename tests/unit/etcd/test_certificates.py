"""The Secrets with certificates."""

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from etcd_operator.certificates import OPERATOR, PEER, SERVER, Layout, certificates, secrets_of
from etcd_operator.validity import expiry
from pilothouse import ObjectMeta
from pilothouse.views import Secret
from tests.unit.etcd.manifests import SECURE, blueprint
from tests.unit.kube.authority import Authority

CLUSTER = blueprint(SECURE)
NOW = datetime.now(UTC)
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
    found = certificates(CLUSTER, secrets, NOW)
    assert found.mistakes == ()
    assert found.credentials
    assert found.credentials.ca == authority.ca_file.read_text()
    assert "PRIVATE KEY" in found.credentials.key
    assert "PRIVATE KEY" not in repr(found)


def test_without_tls_there_is_nothing_to_read() -> None:
    found = certificates(blueprint({}), {}, NOW)
    assert (found.credentials, found.authorities, found.mistakes) == (None, frozenset(), ())


def test_without_tls_for_clients_there_are_no_credentials(secrets: dict[str, Secret | None]) -> None:
    cluster = blueprint({"TLS": {"static": {"member": {"peerSecret": "peers"}}}})
    found = certificates(cluster, secrets, NOW)
    assert (found.credentials, found.mistakes) == (None, ())
    assert found.authorities


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_missing_secret_is_named(name: str, secrets: dict[str, Secret | None]) -> None:
    layout = LAYOUTS[name]
    [mistake] = certificates(CLUSTER, {**secrets, name: None}, NOW).mistakes
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
    found = certificates(CLUSTER, secrets, NOW)
    assert found.credentials is None
    [mistake] = found.mistakes
    key = getattr(LAYOUTS[name], part)
    assert (mistake.secret, mistake.key) == (name, key)
    assert mistake.message.startswith(f"Key {key} of Secret {name} ")
    assert complaint in mistake.message


@pytest.mark.parametrize("part", ["ca", "certificate"])
def test_a_certificate_that_only_openssl_reads_is_named(
    part: str, authority: Authority, secrets: dict[str, Secret | None]
) -> None:
    """Go, and so etcd, skips a block with this title."""
    files = {"ca": authority.ca_file, "certificate": authority.issue("member")[0]}
    pem = files[part].read_bytes().replace(b"CERTIFICATE", b"X509 CERTIFICATE")
    secrets["peers"] = secret(authority, PEER, **{part: pem})
    [mistake] = certificates(CLUSTER, secrets, NOW).mistakes
    assert mistake.key == getattr(PEER, part)
    assert "is not a certificate in PEM format" in mistake.message


def test_a_renewed_certificate_is_not_a_changed_authority(
    authority: Authority, secrets: dict[str, Secret | None], tmp_path: Path
) -> None:
    before = certificates(CLUSTER, secrets, NOW)
    secrets["operator"] = secret(authority, OPERATOR)
    renewed = certificates(CLUSTER, secrets, NOW)
    assert renewed.authorities == before.authorities
    assert renewed.credentials != before.credentials
    secrets["peers"] = secret(Authority(tmp_path), PEER)
    assert certificates(CLUSTER, secrets, NOW).authorities != before.authorities


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
    before = certificates(CLUSTER, secrets, NOW)
    secrets["peers"] = secret(authority, PEER, ca=rewritten(one, two))
    after = certificates(CLUSTER, secrets, NOW)
    assert (after.authorities, after.mistakes) == (before.authorities, ())
    assert sorted(each.partition(":")[0] for each in after.authorities) == [
        "peer-ca.crt",
        "peer-ca.crt",
        "server-ca.crt",
    ]


def test_the_members_do_not_read_the_authorities_of_the_operator(
    secrets: dict[str, Secret | None], tmp_path: Path
) -> None:
    before = certificates(CLUSTER, secrets, NOW)
    secrets["operator"] = secret(Authority(tmp_path), OPERATOR)
    after = certificates(CLUSTER, secrets, NOW)
    assert after.authorities == before.authorities
    assert after.credentials != before.credentials


def test_an_added_authority_is_a_further_one(
    authority: Authority, secrets: dict[str, Secret | None], tmp_path: Path
) -> None:
    before = certificates(CLUSTER, secrets, NOW).authorities
    both = authority.ca_file.read_bytes() + Authority(tmp_path).ca_file.read_bytes()
    secrets["peers"] = secret(authority, PEER, ca=both)
    assert certificates(CLUSTER, secrets, NOW).authorities > before


def test_one_secret_may_hold_all_keys(authority: Authority) -> None:
    member = {"peerSecret": "all", "serverSecret": "all"}
    cluster = blueprint({"TLS": {"static": {"member": member, "operatorSecret": "all"}}})
    whole: dict[str, bytes] = {}
    for layout in LAYOUTS.values():
        whole |= secret(authority, layout).data
    assert certificates(cluster, {"all": Secret(data=whole)}, NOW).mistakes == ()
    missing = certificates(cluster, {"all": None}, NOW).mistakes
    assert {each.secret for each in missing} == {"all"}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("part", ["certificate", "ca"])
def test_an_expired_certificate_is_named(
    name: str, part: str, secrets: dict[str, Secret | None], tmp_path: Path
) -> None:
    layout, days = LAYOUTS[name], {"certificate": 1000, "ca": 1000, part: 20}
    authority = Authority(tmp_path, days=days["ca"])
    certificate, key = authority.issue("member", days=days["certificate"])
    files = (authority.ca_file, certificate, key)
    secrets[name] = Secret(data={each: path.read_bytes() for each, path in zip(layout, files, strict=True)})
    of, others = getattr(layout, part), {each: secrets[each] for each in LAYOUTS if each != name}
    assert len(others) == 2
    assert certificates(CLUSTER, secrets, NOW + timedelta(days=5)).expiring == ()
    soon = [certificates(CLUSTER, secrets, NOW + timedelta(days=each)) for each in (7, 19)]
    assert [each.mistakes for each in soon] == [(), ()]
    [warning] = soon[0].expiring
    assert soon[1].expiring == (warning,), "it does not depend on the present time"
    assert warning.reason == "CertificateExpires"
    assert warning.message.startswith(f"Key {of} of Secret {name} expires at {NOW + timedelta(20):%Y-%m-%d}")
    found = certificates(CLUSTER, secrets, NOW + timedelta(days=21))
    [mistake] = found.mistakes
    assert (mistake.secret, mistake.key) == (name, of)
    assert mistake.message.startswith(f"Key {of} of Secret {name} expired at ")
    assert mistake.message.endswith(". Renew it.")
    assert found.credentials is None


def test_an_expired_authority_beside_a_valid_one_is_no_mistake(
    authority: Authority, secrets: dict[str, Secret | None], tmp_path: Path
) -> None:
    old = Authority(tmp_path, days=1).ca_file.read_bytes()
    secrets["peers"] = secret(authority, PEER, ca=old + authority.ca_file.read_bytes())
    found = certificates(CLUSTER, secrets, NOW + timedelta(days=5))
    assert (found.mistakes, found.expiring) == ((), ())


@pytest.mark.parametrize("algorithm", ["EC", "RSA"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_key_of_another_certificate_is_named(
    name: str, algorithm: str, authority: Authority, secrets: dict[str, Secret | None], tmp_path: Path
) -> None:
    _, key = authority.issue("other")
    if algorithm == "RSA":
        key = tmp_path / "rsa.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    layout = LAYOUTS[name]
    secrets[name] = secret(authority, layout, key=key.read_bytes())
    [mistake] = certificates(CLUSTER, secrets, NOW).mistakes
    assert (mistake.secret, mistake.key) == (name, layout.key)
    assert mistake.message == (
        f"Key {layout.key} of Secret {name} does not belong to the certificate in {layout.certificate}. "
        "Replace both."
    )


def test_an_encrypted_or_damaged_key_is_named(
    authority: Authority, secrets: dict[str, Secret | None], tmp_path: Path
) -> None:
    key = tmp_path / "encrypted.key"
    words = ["openssl", "genrsa", "-aes128", "-passout", "pass:secret", "-out", str(key), "2048"]
    subprocess.run(words, check=True, capture_output=True)
    secrets["peers"] = secret(authority, PEER, key=key.read_bytes())
    [mistake] = certificates(CLUSTER, secrets, NOW).mistakes
    assert mistake.message == (
        "Key peer.key of Secret peers cannot be used with peer.crt: the key is encrypted. Replace both."
    )
    damaged = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
    secrets["peers"] = secret(authority, PEER, key=damaged)
    [mistake] = certificates(CLUSTER, secrets, NOW).mistakes
    assert mistake.message.startswith("Key peer.key of Secret peers cannot be used with peer.crt: ")


@pytest.mark.parametrize(
    ("text", "year"), [("491231235959Z", 2049), ("500101000000Z", 1950), ("99991231235959Z", 9999)]
)
def test_the_times_of_both_formats_are_read(text: str, year: int) -> None:
    def der(tag: int, *parts: bytes) -> bytes:
        content = b"".join(parts)
        return bytes([tag, 0x82, *len(content).to_bytes(2, "big")]) + content

    time = der(0x17 if len(text) == 13 else 0x18, text.encode())
    validity = der(0x30, time, time)
    fields = (der(0x02, b"\x01"), der(0x30), der(0x30), validity, der(0x30))
    for version in ([], [der(0xA0, der(0x02, b"\x02"))]):
        found = expiry(der(0x30, der(0x30, *version, *fields), der(0x30)))
        assert found is not None
        assert found.year == year
    assert expiry(der(0x30, der(0x30))) is None
    assert expiry(b"\x30") is None
