"""Errors about a Secret name fields and reasons, and never contain a value."""

import base64
import json
import traceback
from typing import Any

import msgspec
import pytest

from pilothouse.kube import (
    ApiError,
    ConfigError,
    Invalid,
    ObjectMeta,
    Resource,
    Undecodable,
    Unreachable,
    hide_contents,
)
from pilothouse.kube.answers import event_reader, read_object, read_page
from pilothouse.kube.errors import api_error
from pilothouse.telemetry import object_context

PATH = "/api/v1/namespaces/default/secrets/web"
VALUE = "hunter2"
ENCODED = base64.b64encode(VALUE.encode()).decode()


def refused(
    message: str,
    *causes: tuple[str, str],
    code: int = 422,
    path: str = PATH,
    sent: Any = None,
    reason: str = "Invalid",
) -> ApiError:
    details = {"causes": [{"field": f, "message": m, "reason": "FieldValueInvalid"} for f, m in causes]}
    status = {"kind": "Status", "code": code, "reason": reason, "message": message, "details": details}
    return api_error(code, json.dumps(status).encode(), path=path, sent=json.dumps(sent).encode())


KEY_RULE = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
SAID = [
    # (code, message, causes, what remains)
    (
        422,
        f'Secret "web" is invalid: data[{VALUE} key]: Invalid value: "{VALUE} key": {KEY_RULE}',
        [(f"data[{VALUE} key]", f'Invalid value: "{VALUE} key": {KEY_RULE}')],
        'Secret "web" is invalid: data[(hidden)]: Invalid value: (hidden)',
    ),
    (
        422,
        f'Secret "web" is invalid: [data[tls.crt]: Required value, type: Unsupported value: "{VALUE}"]',
        [("data[tls.crt]", "Required value"), ("type", f'Unsupported value: "{VALUE}": supported: "Opaque"')],
        'Secret "web" is invalid: data[tls.crt]: Required value; type: Unsupported value: (hidden)',
    ),
    (
        422,
        f'Secret "web" is invalid: data.a: Invalid value: "{VALUE}": too short',
        [],
        'Secret "web" is invalid: data.a: Invalid value: (hidden)',
    ),
    (
        403,
        f'admission webhook "policy.example.com" denied the request: {VALUE} is weak: change it',
        [],
        'admission webhook "policy.example.com" denied the request: (hidden)',
    ),
    (
        422,
        "secrets \"web\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: "
        f"the password {VALUE} is weak",
        [("", f"the password {VALUE} is weak")],
        "secrets \"web\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: "
        "(hidden)",
    ),
    (
        400,
        "failed to create typed patch object (default/web; /v1, Kind=Secret): errors:\n"
        f"  .stringData.pin: expected string, got &value.valueUnstructured{{Value:{VALUE}}}",
        [],
        "failed to create typed patch object (default/web; /v1, Kind=Secret): errors:\n"
        "  .stringData.pin: expected string, got (hidden)",
    ),
]


@pytest.mark.parametrize(("code", "message", "causes", "remains"), SAID)
def test_values_from_other_clients_are_hidden_too(
    code: int, message: str, causes: list[tuple[str, str]], remains: str
) -> None:
    error = refused(message, *causes, code=code)
    assert str(error) == remains
    assert VALUE not in repr(error)
    assert VALUE not in str(error.causes)
    assert [cause.reason for cause in error.causes] == ["FieldValueInvalid"] * len(causes)


@pytest.mark.parametrize(
    ("code", "reason", "message"),
    [
        (404, "NotFound", 'secrets "web" not found'),
        (404, "NotFound", 'namespaces "default" not found'),
        (
            403,
            "Forbidden",
            'secrets "web" is forbidden: User "system:serviceaccount:a:b" cannot patch resource "secrets" in '
            'API group "" in the namespace "default"',
        ),
        (409, "Conflict", 'Apply failed with 1 conflict: conflict with "rival": .data.password'),
        (409, "AlreadyExists", 'secrets "web" already exists'),
    ],
)
def test_messages_that_quote_only_names_are_kept(code: int, reason: str, message: str) -> None:
    assert str(refused(message, code=code, reason=reason)) == message


@pytest.mark.parametrize(
    "sent",
    [
        {"kind": "Secret", "stringData": {"a": VALUE}},
        {"kind": "Secret", "data": {"a": ENCODED}},
        {"kind": "Secret", "data": {"a": VALUE}},
        {"kind": "Secret", "stringData": {"a": [VALUE]}},
        {"kind": "Secret", "stringData": VALUE},
    ],
)
@pytest.mark.parametrize("quote", [VALUE, ENCODED, f"x {VALUE}"])
def test_sent_values_are_hidden_in_any_message(sent: Any, quote: str) -> None:
    if quote == ENCODED and ENCODED not in str(sent) and VALUE not in str(sent):
        return
    error = refused(f"the server cannot handle {quote}", code=400, sent=sent)
    assert VALUE not in str(error)
    assert ENCODED.rstrip("=") not in str(error)
    page = api_error(
        502, f"proxy: bad gateway for {quote}".encode(), path=PATH, sent=json.dumps(sent).encode()
    )
    assert VALUE not in str(page)


def test_a_long_value_is_hidden_before_the_message_is_shortened() -> None:
    long = "k" * 2000
    error = refused(f"cannot handle {long}", code=400, sent={"stringData": {"a": long}})
    assert "kkk" not in str(error)


def test_the_reason_that_a_field_of_a_secret_is_immutable_is_kept() -> None:
    error = refused(
        'Secret "a" is invalid: type: Invalid value: "Opaque": field is immutable',
        ("type", 'Invalid value: "Opaque": field is immutable'),
    )
    assert str(error) == 'Secret "a" is invalid: type: Invalid value: (hidden): field is immutable'


def test_errors_about_other_objects_hide_the_values_of_an_applied_secret() -> None:
    secret = Resource("", "v1", "Secret", "secrets", Secret)
    with object_context("Site", "default", "web"):
        hide_contents(secret, {"data": {"password": ENCODED}})
        about_pod = refused(
            f'Pod "web" is invalid: spec.env: Invalid value: "{VALUE}"',
            ("spec.env", f'Invalid value: "{VALUE}"'),
            path="/api/v1/namespaces/default/pods/web",
        )
        others = [
            Invalid(422, "Invalid", f"no: {VALUE}"),
            Unreachable(f"no answer to {VALUE}", maybe_sent=True),
            ConfigError(f"bad {VALUE}"),
        ]
    for error in (about_pod, *others):
        assert VALUE not in str(error)
        assert VALUE not in repr(error)
    assert VALUE not in str(about_pod.causes)


class Secret(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    data: dict[str, str] = {}

    def __post_init__(self) -> None:
        if self.data:
            raise ValueError(f"bad data: {self.data}")


SECRET: Resource[Secret] = Resource("", "v1", "Secret", "secrets", Secret)
STORED = json.dumps({"metadata": {"name": "web", "namespace": "d"}, "data": {"a": ENCODED}}).encode()


def test_a_secret_that_does_not_fit_its_view_is_not_quoted(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Undecodable, match="secrets d/web cannot be read: it does not fit the view") as error:
        read_object(SECRET, STORED)
    assert ENCODED not in "".join(traceback.format_exception(error.value))
    read_page(SECRET, b'{"metadata": {}, "items": [' + STORED + b"]}")
    event_reader(SECRET)(b'{"type":"ADDED","object":' + STORED + b"}")
    assert ENCODED not in caplog.text
