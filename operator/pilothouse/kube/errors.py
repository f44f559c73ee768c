"""What can go wrong between a controller and the API server.

::

    KubeError
    ├── ConfigError            the credentials or the address cannot be loaded
    ├── Undecodable            an answer that does not fit the type that reads it
    ├── Unreachable            no answer: connection refused, lost, timed out
    ├── WatchListUnsupported   the server does not stream its lists
    └── ApiError               the server answered, and said no
        ├── BadRequest         400
        ├── Unauthorized       401
        ├── Forbidden          403
        ├── NotFound           404
        ├── MethodNotAllowed   405  the kind is served, and not with this verb
        ├── NotAcceptable      406  the server cannot answer in that form
        ├── Conflict           409  the object has changed since it was read
        ├── AlreadyExists      409
        ├── Expired            410  the resourceVersion or the page is too old
        ├── RequestEntityTooLarge 413
        ├── UnsupportedMediaType  415  this kind of patch is not served
        ├── Invalid            422  the object breaks its schema or a rule
        ├── TooManyRequests    429
        └── ServerError        5xx
"""

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from pilothouse.kube import secrets
from pilothouse.kube.retry_after import bounded, retry_after_seconds
from pilothouse.telemetry.redaction import redacted, without_values

# Long enough for every sentence the API server writes, short enough for a log line, a condition or an Event.
MESSAGE_LIMIT = 1024
_TEXT_LIMIT = 200


class Cause(NamedTuple):
    """One reason of a refusal: the field (such as `spec.number`), what is wrong, and the code for it."""

    field: str
    message: str
    reason: str = ""


class KubeError(Exception):
    """Base of all errors of this package. Secret values that are known are hidden in the text."""

    def __init__(self, message: str = "") -> None:
        super().__init__(redacted(message))


class ConfigError(KubeError):
    """The cluster's address or credentials could not be loaded; the message says which and what to do."""


class Undecodable(KubeError):
    """An answer does not fit the type that reads it; the message names the object and the field."""


class Unreachable(KubeError):
    """The API server gave no answer.

    Attributes:
        maybe_sent: True when the request may have been carried out; False when it was certainly never sent.
    """

    def __init__(self, message: str, *, maybe_sent: bool) -> None:
        super().__init__(message)
        self.maybe_sent = maybe_sent


class WatchListUnsupported(KubeError):
    """The server does not stream the objects that are there before the changes: list in pages, then watch."""


class ApiError(KubeError):
    """The API server refused a request.

    The text is the server's own sentence, truncated to 1024 characters, and what to do about it where the
    server does not say.

    Attributes:
        remedy: what to do, for all errors of the class; empty where the server's sentence says it.
        status: the HTTP status.
        reason: metav1.Status.reason, such as `AlreadyExists`; empty when the answer was not a Status.
        message: the same as the text.
        causes: what is wrong with which field, for an object that was refused.
        retry_after: seconds after which the server wants to be asked again, if it said so; 300 at most.
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
        sentence = message or f"the API server answered {status} {reason}".rstrip()
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
        "its credentials are missing, wrong or expired: check the service account's token or the kubeconfig"
    )


class Forbidden(ApiError):
    """403: the credentials are good, and RBAC or an admission plugin does not allow the request."""


class NotFound(ApiError):
    """404: the object, or its whole kind, does not exist."""


class MethodNotAllowed(ApiError):
    """405: the kind is served, and not with this verb, such as a list of what can only be created."""

    remedy = "the kind does not offer this verb; 'kubectl api-resources -o wide' lists those that it does"


class NotAcceptable(ApiError):
    """406: the server cannot answer in the form that was asked for."""

    remedy = "the server cannot answer in this form; a kind of an aggregated API may lack it"


class Conflict(ApiError):
    """409: the object has changed since it was read. Read it again and decide again."""


class AlreadyExists(ApiError):
    """409: an object of that name exists."""


class Expired(ApiError):
    """410: the resourceVersion or the continue token is older than what the server remembers. List again."""


class RequestEntityTooLarge(ApiError):
    """413: the object is larger than the server or etcd takes (3 MiB and 1.5 MiB by default)."""

    remedy = "make the object smaller, or split it: the API server takes 3 MiB and etcd 1.5 MiB"


class UnsupportedMediaType(ApiError):
    """415: the server does not take a body of this type: strategic merge patches of custom resources."""

    remedy = "patch with another type: merge, JSON and apply patches are served for every kind"


class Invalid(ApiError):
    """422: the object breaks its schema or a validation rule; `causes` name the fields."""


class TooManyRequests(ApiError):
    """429: the server sheds load, or an eviction is held up by a disruption budget.

    The request was not carried out.
    """


class ServerError(ApiError):
    """5xx: the server, or something between, failed.

    A request that changes things may have been carried out.
    """


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
    """metav1.Status: how the API server says that, and why, it refused."""

    code: int = 0
    reason: str = ""
    message: str = ""
    details: _StatusDetails | None = None


_decode_status = msgspec.json.Decoder(Status).decode


def api_error(
    status: int, body: bytes, *, retry_after: str = "", path: str = "", sent: bytes | None = None
) -> ApiError:
    """Return the error for an answer.

    Args:
        status: The HTTP status of the answer. The code of a Status in the body overrides it.
        body: The answer's body. Only a Status's sentence, or the start of a plain text, becomes part of the
            message.
        retry_after: The Retry-After header.
        path: The path of the request. What the server quotes of a Secret is left out.
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
        found = [(*secrets.cause(field, text), reason) for field, text, reason in found]
        message = secrets.refusal(message, [f"{field}: {text}" for field, text, _ in found])
    return _class(code, answer.reason)(
        code,
        answer.reason,
        shorten(clean(message), MESSAGE_LIMIT),
        tuple(
            Cause(clean(field), shorten(clean(text), _TEXT_LIMIT), reason) for field, text, reason in found
        ),
        seconds if seconds is not None else bounded(details.retry_after_seconds) or None,
    )


def _cleaner(path: str, sent: bytes) -> Callable[[str], str]:
    """Return what hides secret values in a text. It has to come before the text is shortened."""
    if not secrets.is_secret_path(path):
        return redacted
    return lambda text: redacted(without_values(text, lambda: secrets.values_of(sent)))


def _class(status: int, reason: str) -> type[ApiError]:
    if reason == "AlreadyExists":
        return AlreadyExists
    if status >= 500:
        return ServerError
    return _BY_STATUS.get(status, ApiError)


def _plain_text(status: int, body: bytes, clean: Callable[[str], str]) -> str:
    text = clean(body.decode(errors="replace").strip())
    # A proxy's page or some other JSON is of no use to a reader and may hold what a log must not.
    if not text or text[0] in "{[<":
        return f"the API server answered {status} without saying why"
    return f"the API server answered {status}: {shorten(text, _TEXT_LIMIT)}"


def shorten(text: str, limit: int) -> str:
    """Return the text, cut to `limit` characters with an ellipsis when it is longer."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
