"""The error for a response: class, message, causes, and no secrets."""

import json

import pytest

from pilothouse.kube import (
    AlreadyExists,
    ApiError,
    BadRequest,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    KubeError,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    RequestEntityTooLarge,
    ServerError,
    TooManyRequests,
    Unauthorized,
    UnsupportedMediaType,
)
from pilothouse.kube.errors import MESSAGE_LIMIT, api_error
from tests.unit.kube.views import status


def answer(code: int, reason: str = "", message: str = "why", **details: object) -> ApiError:
    return api_error(code, json.dumps(status(code, reason, message, **details)).encode())


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (400, "BadRequest", BadRequest),
        (401, "Unauthorized", Unauthorized),
        (403, "Forbidden", Forbidden),
        (404, "NotFound", NotFound),
        (405, "MethodNotAllowed", MethodNotAllowed),
        (406, "NotAcceptable", NotAcceptable),
        (409, "Conflict", Conflict),
        (409, "AlreadyExists", AlreadyExists),
        (410, "Gone", Expired),
        (410, "Expired", Expired),
        (413, "RequestEntityTooLarge", RequestEntityTooLarge),
        (415, "UnsupportedMediaType", UnsupportedMediaType),
        (418, "Teapot", ApiError),
        (422, "Invalid", Invalid),
        (429, "TooManyRequests", TooManyRequests),
        (500, "InternalError", ServerError),
        (504, "Timeout", ServerError),
    ],
)
def test_class_by_status_and_reason(code, reason, expected):
    error = answer(code, reason)
    assert type(error) is expected
    assert isinstance(error, KubeError)
    assert (error.status, error.reason, error.message) == (code, reason, str(error))
    assert str(error) == (f"why; {error.remedy}" if error.remedy else "why")


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (401, "check the service account's token"),
        (405, "kubectl api-resources"),
        (406, "aggregated API"),
        (413, "make the object smaller"),
        (415, "merge, JSON and apply patches"),
    ],
)
def test_errors_say_what_to_do_if_the_server_does_not(code, advice):
    assert advice in str(answer(code, message="the server does not allow this"))


def test_a_status_without_a_message_has_a_default_message():
    assert str(answer(409, "Conflict", "")) == "the API server returned 409 Conflict"


def test_long_messages_are_truncated():
    error = answer(422, "Invalid", "x" * 5000, causes=[{"field": "spec", "message": "y" * 5000}])
    assert len(str(error)) == MESSAGE_LIMIT
    assert "…" in str(error)
    assert len(error.causes[0].message) == 512


def test_the_reason_after_a_long_value_is_kept():
    texts = {name: f'Invalid value: {{"a":"{name * 3000}"}}: field is immutable' for name in "xyz"}
    causes = [{"field": f"spec.{name}", "message": text} for name, text in texts.items()]
    message = (
        f'Job.batch "j" is invalid: [{", ".join(f"spec.{name}: {text}" for name, text in texts.items())}]'
    )
    error = answer(422, "Invalid", message, causes=causes)
    assert len(str(error)) <= MESSAGE_LIMIT
    assert str(error).startswith('Job.batch "j" is invalid: spec.x: Invalid value: {"a":"xx')
    for name in texts:
        assert f"spec.{name}: Invalid value" in str(error)
    assert str(error).count("}: field is immutable") == 3
    assert all(each.message.endswith("field is immutable") for each in error.causes)


def test_retry_after_from_header_or_status():
    body = json.dumps(status(429, "TooManyRequests", "later", retryAfterSeconds=3)).encode()
    assert api_error(429, body).retry_after == 3
    assert api_error(429, body, retry_after="7").retry_after == 7
    assert api_error(429, body, retry_after="soon").retry_after == 3
    assert api_error(429, b"").retry_after is None
    for_ever = json.dumps(status(429, "TooManyRequests", "later", retryAfterSeconds=10**9)).encode()
    assert api_error(429, for_ever).retry_after == 300
    assert api_error(429, b"", retry_after="9" * 400).retry_after is None


def test_plain_text_is_shown_in_part():
    error = api_error(502, b"upstream connect error " + b"z" * 5000)
    assert str(error).startswith("the API server returned 502: upstream connect error zzz")
    assert len(str(error)) < 300


@pytest.mark.parametrize(
    "body", [b"", b"<html>secret</html>", b'{"token": "secret"}', b"[1]", b"\xff\xfe{", b"null"]
)
def test_other_bodies_are_kept_out_of_messages(body):
    error = api_error(503, body)
    assert isinstance(error, ServerError)
    assert "secret" not in str(error)
    assert "503" in str(error)
