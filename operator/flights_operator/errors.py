"""What can go wrong between the operator and the airline.

::

    AirlineError
    ├── TransientError         may go away by itself: the ticket is played again within seconds
    │   ├── NoAnswerError      no connection, no answer in time, 408, 5xx
    │   ├── ThrottledError     429
    │   ├── WrongAddressError  what answers is not the booking API
    │   ├── UnauthorizedError  the API key is missing or not accepted (401)
    │   └── CircuitOpenError   not asked: the last requests all failed
    └── RejectedError          any other 4xx: asking again would get the same answer
        ├── ReferenceExistsError   a booking has this reference already
        └── StaleBookingError      the booking is gone, or is no longer what it was when it was read
"""

from typing import ClassVar


class AirlineError(Exception):
    """Base of all errors of the airline's client. Its text is a sentence for people, without secrets."""


class TransientError(AirlineError):
    """The request may succeed later.

    Attributes:
        retry_after: Seconds until it makes sense to ask again, where that is known.
        passing: Another attempt within the same call may succeed. Where not, a person has to mend something
            that all tickets need.
    """

    passing: ClassVar[bool] = True

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NoAnswerError(TransientError):
    """No usable answer. The request may have been carried out."""


class ThrottledError(TransientError):
    """429: the airline sheds load. The request was not carried out."""


class WrongAddressError(TransientError):
    """What answers is not the booking API: AIRLINE_URL is wrong, or what routes to the API does not yet."""

    passing = False


class UnauthorizedError(TransientError):
    """The API key is missing or not accepted, also after it was read again."""

    passing = False


class CircuitOpenError(TransientError):
    """The request was not sent, because those before it failed; it says why the last of them did.

    Attributes:
        cause: How the last request failed.
    """

    passing = False

    def __init__(self, cause: TransientError, *, retry_after: float) -> None:
        super().__init__(str(cause), retry_after=retry_after)
        self.cause = cause


class RejectedError(AirlineError):
    """The airline refused the request; the text is its own message.

    Attributes:
        status: The HTTP status, 400 to 499.
        code: The airline's machine-readable reason, empty when it gave none.
    """

    def __init__(self, message: str, *, status: int, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class ReferenceExistsError(RejectedError):
    """409: a booking with this reference exists."""


class StaleBookingError(RejectedError):
    """404 or 412 to a change: the booking is gone, or is no longer what it was when it was read."""
