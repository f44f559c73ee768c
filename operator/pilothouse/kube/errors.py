"""The errors of the client.

::

    KubeError
    ├── ConfigError            the credentials or the address cannot be loaded
    ├── Undecodable            the response does not fit the type that decodes it
    ├── Unreachable            no response: connection refused, lost, timed out
    ├── WatchListUnsupported   the server does not stream lists
    └── ApiError               the server refused the request
        ├── BadRequest         400
        ├── Unauthorized       401
        ├── Forbidden          403
        ├── NotFound           404
        ├── MethodNotAllowed   405  the kind does not support this verb
        ├── NotAcceptable      406  the server does not support this content type
        ├── Conflict           409  the object has changed since it was read
        ├── AlreadyExists      409
        ├── Expired            410  the resourceVersion or the page is too old
        ├── RequestEntityTooLarge 413
        ├── UnsupportedMediaType  415  the server does not support this type of patch
        ├── Invalid            422  the object violates its schema or a rule
        ├── TooManyRequests    429
        └── ServerError        5xx
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from pilothouse.kube import secrets
from pilothouse.kube.retry_after import bounded, retry_after_seconds
from pilothouse.telemetry.redaction import redacted, without_values

# Long enough for every message of the API server, short enough for a log line, a condition or an Event.
MESSAGE_LIMIT = 1024
_TEXT_LIMIT = 200
# Long enough for the longest reason in the validation of Kubernetes, and for a part of the value before it.
_CAUSE_LIMIT = 512
_INVALID = " is invalid: "


class Cause(NamedTuple):
    """One cause of a refusal.

    Attributes:
        field: The field, such as `spec.number`.
        message: What is wrong.
        reason: The code, such as `FieldValueInvalid`.
    """

    field: str
    message: str
    reason: str = ""


class KubeError(Exception):
    """The base of all errors of this package. Known secret values are hidden in the text."""

    def __init__(self, message: str = "") -> None:
        super().__init__(redacted(message))


class ConfigError(KubeError):
    """The cluster's address or credentials cannot be loaded. The message names the cause and the fix."""


class Undecodable(KubeError):
    """A response does not fit the type that decodes it. The message names the object and the field.

    Attributes:
        problem: For a named object that does not fit its view: the message without the object. Otherwise
            empty.
    """

    def __init__(self, message: str, problem: str = "") -> None:
        super().__init__(message)
        self.problem = redacted(problem)


class Unreachable(KubeError):
    """The API server did not respond.

    Attributes:
        maybe_sent: Whether the server may have executed the request. False: it was certainly not sent.
    """

    def __init__(self, message: str, *, maybe_sent: bool) -> None:
        super().__init__(message)
        self.maybe_sent = maybe_sent


class WatchListUnsupported(KubeError):
    """The server does not stream existing objects before changes. List in pages, then watch."""


# The message of the authorizers (k8s.io/apiserver, endpoints/handlers/responsewriters). Admission plugins and
# webhooks, which decide about the object, use others.
_AUTHORIZER = re.compile(r'\bUser ".*" cannot \S+ resource ')


class ApiError(KubeError):
    """The API server refused a request.

    The text is the server's message. Beyond 1024 characters its middle is left out. If the message does not
    say what to do, the text continues with the fix.

    Attributes:
        remedy: The fix that all errors of the class add to the text. Empty: the server's message is enough.
        status: The HTTP status.
        reason: The reason in the metav1.Status, such as `AlreadyExists`. Empty: the response was not a
            Status.
        message: The text of the error.
        causes: The fields that are wrong, for a refused object.
        retry_after: The seconds after which the server asks clients to retry, at most 300. None: it did not.
    """

    remedy = ""

    def __init__(
        self,
        status: int,
        reason: str = "",
        message: str = "",
        causes: tuple[Cause, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        sentence = message or f"the API server returned {status} {reason}".rstrip()
        super().__init__(f"{sentence}; {self.remedy}" if self.remedy else sentence)
        self.status = status
        self.reason = reason
        self.message = str(self)
        self.causes = tuple(
            Cause(redacted(each.field), redacted(each.message), each.reason) for each in causes
        )
        self.retry_after = retry_after


class BadRequest(ApiError):
    """400: the request itself is wrong."""


class Unauthorized(ApiError):
    """401: the credentials are missing, wrong or expired."""

    remedy = (
        "the credentials are missing, wrong or expired: check the service account's token or the kubeconfig"
    )


class Forbidden(ApiError):
    """403: the credentials are valid, but RBAC or an admission plugin does not allow the request."""

    @property
    def lacks_permission(self) -> bool:
        """Whether an authorizer such as RBAC refused the request. Otherwise, admission refused the object."""
        return _AUTHORIZER.search(self.message) is not None


class NotFound(ApiError):
    """404: the object, or its whole kind, does not exist."""


class MethodNotAllowed(ApiError):
    """405: the kind does not support this verb. For example, some kinds can be created but not listed."""

    remedy = (
        "the kind does not support this verb; 'kubectl api-resources -o wide' shows the verbs of each kind"
    )


class NotAcceptable(ApiError):
    """406: the server cannot respond in any of the accepted content types."""

    remedy = "the server does not support this content type; a kind of an aggregated API may lack it"


class Conflict(ApiError):
    """409: the object has changed since it was read. Read it again and retry."""


class AlreadyExists(ApiError):
    """409: an object of that name exists."""


class Expired(ApiError):
    """410: the resourceVersion or the continue token has expired. List again."""


class RequestEntityTooLarge(ApiError):
    """413: the object exceeds the limit of the API server (3 MiB by default) or of etcd (1.5 MiB)."""

    remedy = "make the object smaller, or split it: the limit is 3 MiB in the API server and 1.5 MiB in etcd"


class UnsupportedMediaType(ApiError):
    """415: the server does not support this content type. Custom resources have no strategic merge patch."""

    remedy = "use another patch type: every kind supports merge, JSON and apply patches"


class Invalid(ApiError):
    """422: the object violates its schema or a validation rule. `causes` names the fields."""


class TooManyRequests(ApiError):
    """429: the server sheds load, or a disruption budget does not allow an eviction.

    The request was not executed.
    """


class ServerError(ApiError):
    """5xx: the server, or a proxy before it, failed. A write may have been executed."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    405: MethodNotAllowed,
    406: NotAcceptable,
    409: Conflict,
    410: Expired,
    413: RequestEntityTooLarge,
    415: UnsupportedMediaType,
    422: Invalid,
    429: TooManyRequests,
}


class _StatusCause(msgspec.Struct, gc=False):
    field: str = ""
    message: str = ""
    reason: str = ""


class _StatusDetails(msgspec.Struct, rename="camel"):
    causes: list[_StatusCause] = []
    retry_after_seconds: float = 0


class Status(msgspec.Struct, tag_field="kind", tag="Status"):
    """metav1.Status: the body of a refusal."""

    code: int = 0
    reason: str = ""
    message: str = ""
    details: _StatusDetails | None = None


_decode_status = msgspec.json.Decoder(Status).decode


def api_error(
    status: int, body: bytes, *, retry_after: str = "", path: str = "", sent: bytes | None = None
) -> ApiError:
    """Returns the error for a response.

    Args:
        status: The HTTP status of the response. The code of a Status in the body overrides it.
        body: The response's body. Only the message of a Status, or the start of a plain text, becomes part of
            the error.
        retry_after: The Retry-After header.
        path: The path of the request. For a Secret, values that the server quotes are left out.
        sent: The body of the request.
    """
    seconds = retry_after_seconds(retry_after)
    clean = _cleaner(path, sent or b"")
    try:
        answer = _decode_status(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _class(status, "")(status, "", _plain_text(status, body, clean), retry_after=seconds)
    code = answer.code or status
    details = answer.details or _StatusDetails()
    found = [(each.field, each.message, each.reason) for each in details.causes]
    message = answer.message
    if secrets.is_secret_path(path):
        from pilothouse.kube import secret_values

        found = [(*secret_values.cause(field, text), reason) for field, text, reason in found]
        message = secret_values.refusal(message, [f"{field}: {text}" for field, text, _ in found])
    causes = tuple(
        Cause(clean(field), shorten_middle(clean(text), _CAUSE_LIMIT), reason)
        for field, text, reason in found
    )
    return _class(code, answer.reason)(
        code,
        answer.reason,
        _short_message(clean(message), causes),
        causes,
        seconds if seconds is not None else bounded(details.retry_after_seconds) or None,
    )


def _cleaner(path: str, sent: bytes) -> Callable[[str], str]:
    """Returns a function that hides secret values in a text. Call it before the text is shortened."""
    if not secrets.is_secret_path(path):
        return redacted
    from pilothouse.kube.secret_values import values_of

    return lambda text: redacted(without_values(text, lambda: values_of(sent)))


def _class(status: int, reason: str) -> type[ApiError]:
    if reason == "AlreadyExists":
        return AlreadyExists
    if status >= 500:
        return ServerError
    return _BY_STATUS.get(status, ApiError)


def _plain_text(status: int, body: bytes, clean: Callable[[str], str]) -> str:
    text = clean(body.decode(errors="replace").strip())
    # A proxy's page or other JSON does not help the reader, and may contain secrets.
    if not text or text[0] in "{[<":
        return f"the API server returned {status} without a reason"
    return f"the API server returned {status}: {shorten(text, _TEXT_LIMIT)}"


def _short_message(message: str, causes: Sequence[Cause]) -> str:
    """Returns a message of at most `MESSAGE_LIMIT` characters that contains the reason of the refusal.

    The server quotes the whole invalid value, such as the template of a Job, before the reason.
    """
    head, invalid, _ = message.partition(_INVALID)
    if len(message) > MESSAGE_LIMIT and invalid and causes:
        message = head + invalid + ", ".join(_line(each) for each in causes)
    return shorten_middle(message, MESSAGE_LIMIT)


def _line(cause: Cause) -> str:
    text = shorten_middle(cause.message, _TEXT_LIMIT)
    return f"{cause.field}: {text}" if cause.field else text


def shorten_middle(text: str, limit: int) -> str:
    """Returns the text with its beginning and its end, `limit` characters including an ellipsis."""
    if len(text) <= limit:
        return text
    head = limit // 2
    return f"{text[:head]}…{text[len(text) - (limit - head - 1) :]}"


def shorten(text: str, limit: int) -> str:
    """Returns the text, truncated to `limit` characters including an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
