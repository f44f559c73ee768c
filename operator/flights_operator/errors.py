"""The errors of requests to the airline.

::

    AirlineError
    ├── TransientError         a retry may succeed: the ticket is reconciled again within seconds
    │   ├── NoAnswerError      no connection, a timeout, 408, 5xx
    │   ├── ThrottledError     429
    │   ├── WrongAddressError  the server at AIRLINE_URL is not the booking API
    │   ├── UnauthorizedError  the API key is missing or not accepted (401)
    │   └── CircuitOpenError   not sent, because the last requests all failed
    └── RejectedError          any other 4xx: the same request would be rejected again
        ├── ReferenceExistsError   the reference already has a booking
        └── StaleBookingError      the booking was deleted or changed after it was read
"""

from typing import ClassVar


class AirlineError(Exception):
    """The base class of all errors of the airline's client. The text is for users and contains no secrets."""


class TransientError(AirlineError):
    """The request may succeed later.

    Attributes:
        retry_after: The number of seconds until a retry makes sense, if known.
        passing: Whether another attempt within the same call may succeed. If False, an administrator must
            fix something that affects all tickets.
    """

    passing: ClassVar[bool] = True

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NoAnswerError(TransientError):
    """The airline sent no usable answer. It may have carried out the request."""


class ThrottledError(TransientError):
    """The airline limits the request rate (429). It did not carry out the request."""


class WrongAddressError(TransientError):
    """The server at AIRLINE_URL is not the booking API: the URL is wrong, or its route is not set up yet."""

    passing = False


class UnauthorizedError(TransientError):
    """The API key is missing or not accepted, even after it was read again from its file."""

    passing = False


class CircuitOpenError(TransientError):
    """The request was not sent, because the requests before it failed. The text is that of the last failure.

    Attributes:
        cause: The error of the last request.
    """

    passing = False

    def __init__(self, cause: TransientError, *, retry_after: float) -> None:
        super().__init__(str(cause), retry_after=retry_after)
        self.cause = cause


class RejectedError(AirlineError):
    """The airline rejected the request. The text is the airline's message.

    Attributes:
        status: The HTTP status, 400 to 499.
        code: The airline's machine-readable reason. Empty if it gave none.
    """

    def __init__(self, message: str, *, status: int, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class ReferenceExistsError(RejectedError):
    """The reference already has a booking (409)."""


class StaleBookingError(RejectedError):
    """The booking was deleted or changed after it was read (404 or 412 to a change)."""
