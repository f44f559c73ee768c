"""Settings from the environment: the error for a wrong one names the variable, its value and the fix."""

import pytest

from pilothouse.controller import LeaseTiming
from pilothouse.process import Settings, SettingsError
from pilothouse.process.environment import Environment


def test_an_empty_environment_gives_the_usual_settings() -> None:
    settings = Settings.load({})
    assert settings.watch_namespaces == ()
    assert not settings.leader_elect
    assert settings.lease == LeaseTiming(15, 10, 2)
    assert (settings.health_host, settings.health_port) == ("", 8081)
    assert settings.resync is None
    assert settings.workers is None
    assert settings.pod_namespace == ""
    assert settings.pod_name


def test_every_variable_is_read() -> None:
    settings = Settings.load(
        {
            "WATCH_NAMESPACE": "a, b",
            "LEADER_ELECT": "true",
            "LEASE_DURATION": "60s",
            "RENEW_DEADLINE": "30",
            "RETRY_PERIOD": "5s",
            "HEALTH_ADDRESS": "[::1]:9000",
            "LOG_FORMAT": "console",
            "LOG_LEVEL": "debug",
            "LOG_LEVEL_FILE": "/etc/pilothouse/log/level",
            "METRICS_CERT_DIR": "/etc/pilothouse/tls",
            "METRICS_AUTH": "true",
            "SHARDS": "8",
            "RESYNC_PERIOD": "1h30m",
            "MAX_CONCURRENT_RECONCILES": "4",
            "SYNC_TIMEOUT": "1m",
            "GRACEFUL_SHUTDOWN_TIMEOUT": "5s",
            "POD_NAMESPACE": "here",
            "POD_NAME": "me",
        }
    )
    assert settings == Settings(
        watch_namespaces=("a", "b"),
        leader_elect=True,
        lease=LeaseTiming(60, 30, 5),
        health_host="::1",
        health_port=9000,
        log_format="console",
        log_level="DEBUG",
        log_level_file="/etc/pilothouse/log/level",
        metrics_cert_dir="/etc/pilothouse/tls",
        metrics_auth=True,
        shards=8,
        resync=5400,
        workers=4,
        sync_timeout=60,
        graceful_stop=5,
        pod_namespace="here",
        pod_name="me",
    )


def test_in_a_pod_a_leader_is_elected_unless_set_otherwise() -> None:
    pod = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
    assert Settings.load(pod).leader_elect
    assert not Settings.load(pod | {"LEADER_ELECT": "false"}).leader_elect


def test_a_resync_period_of_zero_turns_resyncs_off() -> None:
    assert Settings.load({"RESYNC_PERIOD": "0"}).resync == 0


@pytest.mark.parametrize(
    ("name", "value", "fix"),
    [
        ("WATCH_NAMESPACE", "Not A Namespace", "'Not A Namespace'. Use names of namespaces separated by"),
        ("WATCH_NAMESPACE", "good,-bad", "'-bad' is not the name of a namespace. Use names of"),
        ("WATCH_NAMESPACE", "good,Bad", "'Bad' is not the name of a namespace. Use names of"),
        ("WATCH_NAMESPACE", "a" * 64, "Use names of namespaces separated by commas. A name has at most 63"),
        ("WATCH_NAMESPACE", "a.b", "'a.b'. Use names of namespaces"),
        ("WATCH_NAMESPACE", "a b", "'a b'. Use names of namespaces"),
        ("WATCH_NAMESPACE", ",", "A name in it is empty. Use names of"),
        ("WATCH_NAMESPACE", " ", "A name in it is empty. Use names of"),
        ("WATCH_NAMESPACE", "a,,b", "A name in it is empty. Use names of"),
        ("WATCH_NAMESPACE", "a, b,", "An empty value means all namespaces."),
        ("WATCH_NAMESPACE", "a,b, a", "It contains the namespace a twice. Name it once."),
        ("LEADER_ELECT", "maybe", "Use true or false"),
        ("LEASE_DURATION", "soon", "such as 15s, 10m or 1h30m"),
        ("LEASE_DURATION", "99999999999", "of at most 68 years"),
        ("RETRY_PERIOD", "0", "of at least 0.1 seconds"),
        ("HEALTH_ADDRESS", "8081", "Use HOST:PORT"),
        ("HEALTH_ADDRESS", ":99999", "Use HOST:PORT"),
        ("HEALTH_ADDRESS", "a" * 70 + ":8081", "Use HOST:PORT"),
        ("HEALTH_ADDRESS", "a..b:8081", "Use HOST:PORT"),
        ("HEALTH_ADDRESS", "1.2.3:8081", "Use HOST:PORT"),
        ("HEALTH_ADDRESS", "[localhost]:8081", "Use HOST:PORT"),
        ("HEALTH_ADDRESS", "[]:8081", "Use HOST:PORT"),
        ("POD_NAMESPACE", "Bad NS", "Use the name of a namespace"),
        ("POD_NAMESPACE", "../x", "Use the name of a namespace"),
        ("POD_NAMESPACE", "a.b", "Use the name of a namespace"),
        ("POD_NAME", "Pod_1", "Use the name of the pod"),
        ("POD_NAME", "a..b", "Use the name of the pod"),
        ("LOG_FORMAT", "xml", "Use one of json, console"),
        ("LOG_LEVEL", "loud", "Use one of DEBUG, INFO, WARNING, ERROR"),
        ("SHARDS", "many", "Use a whole number, 0 to 256"),
        ("MAX_CONCURRENT_RECONCILES", "0", "Use a whole number, 1 to 1000"),
        ("MAX_CONCURRENT_RECONCILES", "two", "Use a whole number, 1 to 1000"),
        ("RESYNC_PERIOD", "-1", "Use a duration"),
        ("RESYNC_PERIOD", "10 m", "Use a duration"),
        ("SYNC_TIMEOUT", "1e999", "Use a duration"),
        ("SYNC_TIMEOUT", "0", "of at least 1 second, such as"),
    ],
)
def test_the_error_for_a_wrong_value_names_variable_value_and_fix(name: str, value: str, fix: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load({name: value})
    message = str(caught.value)
    assert message.startswith(f"{name} is {value!r}. ")
    assert fix in message
    assert message.endswith(".")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "unit"),
    [("SHARDS", ""), ("RESYNC_PERIOD", ""), ("SYNC_TIMEOUT", "h"), ("HEALTH_ADDRESS", ""), ("LOG_LEVEL", "")],
)
def test_a_very_long_value_is_truncated(name: str, unit: str) -> None:
    prefix = ":" if name == "HEALTH_ADDRESS" else ""
    with pytest.raises(SettingsError) as caught:
        Settings.load({name: prefix + "9" * 5000 + unit})
    sentence = str(caught.value)
    assert sentence.startswith(f"{name} is '{prefix}999")
    assert " characters). Use " in sentence
    assert len(sentence) < 300


@pytest.mark.parametrize(
    ("text", "host"),
    [(":1", ""), ("localhost:1", "localhost"), ("10.0.0.1:1", "10.0.0.1"), ("[fe80::1]:1", "fe80::1")],
)
def test_the_health_address_may_be_a_name_or_an_address(text: str, host: str) -> None:
    assert Settings.load({"HEALTH_ADDRESS": text}).health_host == host


def test_a_pod_has_the_name_of_its_host_unless_set_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "My_Laptop")
    assert Settings.load({}).pod_name == "My_Laptop"
    assert Settings.load({"POD_NAME": "web-0.shop"}).pod_name == "web-0.shop"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"METRICS_AUTH": "true"}, "METRICS_AUTH is true, and METRICS_CERT_DIR is not set. Tokens must"),
        ({"SHARDS": "4", "LEADER_ELECT": "no"}, "SHARDS is 4, and LEADER_ELECT is false. Shards need Leases"),
        ({"LEASE_DURATION": "10s"}, "LEASE_DURATION (10 s) must be longer than RENEW_DEADLINE (10 s)"),
        ({"RETRY_PERIOD": "9s"}, "RENEW_DEADLINE (10 s) must be longer than 1.2 times RETRY_PERIOD (9 s)"),
    ],
)
def test_settings_must_fit_together(variables: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load(variables)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("15", 15), ("0.5", 0.5), ("15s", 15), ("500ms", 0.5), ("10m", 600), ("1h30m", 5400), ("1m0.5s", 60.5)],
)
def test_durations_are_seconds_or_have_units(text: str, seconds: float) -> None:
    assert Environment({"PERIOD": text}).seconds("PERIOD", 1) == seconds


@pytest.mark.parametrize(
    "text",
    ["9" * 400, "9" * 5000, "9" * 308 + "h", "s", "1x", "-1", "-1s", "1h 30m", "m1", "1..5", "\u0661s"],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^PERIOD is .*\. Use a duration.*such as 15s, 10m or 1h30m"):
        Environment({"PERIOD": text}).seconds("PERIOD", 1)
