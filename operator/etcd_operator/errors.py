"""The errors of calls to etcd.

::

    EtcdError
    ├── CredentialsError             the CA, certificate or key of the operator cannot be used
    ├── Unreachable                  no connection, or it was lost before the answer
    │   └── TlsFailed                the handshake failed: wrong name, unknown CA, expired certificate
    ├── DeadlineExceeded             no answer in time
    ├── Undecodable                  the answer is not one of etcd's API
    └── Refused                      etcd answered with an error
        ├── Unavailable              no quorum, an election, a timeout inside etcd, a server that stops
        │   └── NoLeader
        ├── PermissionDenied         auth is enabled, and the operator's user may not do this
        ├── UnhealthyCluster         too few voters were connected to this member for the last 5 s
        ├── NotEnoughStartedMembers  the change would leave too few started voters
        ├── TooManyLearners
        ├── LearnerNotReady          the learner has not caught up with the leader yet
        ├── NotALearner              the member to promote is a voter already
        ├── MemberNotFound
        ├── MemberExists             a member has this ID or one of these peer URLs
        ├── LearnerUnsupported       a learner does not serve this call
        ├── NotLeader                only the leader serves this call
        ├── BadLeaderTransferee      the member is not a voter that can lead
        ├── NoSpace                  a member has the NOSPACE alarm: only reads and deletes
        └── Compacted                the revision has been compacted

An error says nothing about whether a member is alive. In particular, PermissionDenied means that the state
of the member is unknown.
"""

from typing import Final, Literal

# The gRPC statuses of errors with an unknown text that do not show whether the call was executed.
_INDEFINITE: Final = frozenset(("ABORTED", "CANCELLED", "DATA_LOSS", "INTERNAL", "UNKNOWN"))


class EtcdError(Exception):
    """The base of all errors of calls to etcd. The text is for users and contains no secrets.

    Attributes:
        maybe_executed: Whether etcd may have executed the call. If False, it has certainly not. A call that
            changes something must be repeated only after its effect was looked up.
    """

    maybe_executed: bool = False


class CredentialsError(EtcdError):
    """The operator's TLS credentials for a cluster cannot be used.

    Attributes:
        part: Which part is wrong: the CA, or the certificate with its key.
    """

    def __init__(self, part: Literal["ca", "certificate"], message: str) -> None:
        super().__init__(message)
        self.part = part


class Unreachable(EtcdError):
    """There is no connection to the member, or it was lost before the answer.

    Attributes:
        refused: Whether the pod's address refused the connection, so that no process listens there.
    """

    def __init__(self, message: str, *, maybe_executed: bool, refused: bool = False) -> None:
        super().__init__(message)
        self.maybe_executed = maybe_executed
        self.refused = refused


class TlsFailed(Unreachable):
    """The TLS handshake failed, or the member closed the new TLS connection right after it.

    With TLS 1.3, a member refuses the operator's certificate only after the operator's side of the handshake.
    """

    def __init__(self, message: str, *, maybe_executed: bool = False) -> None:
        super().__init__(message, maybe_executed=maybe_executed)


class DeadlineExceeded(EtcdError):
    """The member did not answer in time."""

    def __init__(self, message: str, *, maybe_executed: bool) -> None:
        super().__init__(message)
        self.maybe_executed = maybe_executed


class Undecodable(EtcdError):
    """The answer is not one of etcd's API: another server listens at this address."""

    maybe_executed = True


class Refused(EtcdError):
    """Etcd answered with an error.

    Args:
        call: Who refused what, for the text: `etcd at 10.0.0.7:2379 refused MemberAdd`.
        code: The gRPC status.
        message: Etcd's message.

    Attributes:
        code: The gRPC status, such as `FAILED_PRECONDITION`.
        message: Etcd's own message, such as `etcdserver: member not found`.
    """

    def __init__(self, call: str, code: str, message: str) -> None:
        super().__init__(f"{call}: {_reason(message) or code}")
        self.code = code
        self.message = message
        if type(self) is Refused:
            self.maybe_executed = code in _INDEFINITE


class Unavailable(Refused):
    """The cluster cannot serve the call now: no quorum, an election, or the server stops. Retry."""

    maybe_executed = True


class NoLeader(Unavailable):
    """The member knows no leader."""


class PermissionDenied(Refused):
    """Auth is enabled, and the operator has no user, or its user may not make this call."""


class UnhealthyCluster(Refused):
    """Too few voters were connected to this member for the last 5 s. Retry.

    Etcd refuses every addition until 5 s after a restart or an addition (strict-reconfig-check).
    """


class NotEnoughStartedMembers(Refused):
    """The change of the membership would leave fewer started voters than a quorum."""


class TooManyLearners(Refused):
    """The cluster has as many learners as it allows, which is one by default."""


class LearnerNotReady(Refused):
    """The learner has not caught up with the leader yet. Retry."""


class NotALearner(Refused):
    """The member to promote is a voter already."""


class MemberNotFound(Refused):
    """The cluster has no member with this ID."""


class MemberExists(Refused):
    """A member of the cluster has this ID or one of these peer URLs."""


class LearnerUnsupported(Refused):
    """The member is a learner, which serves only Status and serializable reads."""


class NotLeader(Refused):
    """The member is not the leader, and only the leader serves this call."""


class BadLeaderTransferee(Refused):
    """The member that is to lead is not a voter of the cluster."""


class NoSpace(Refused):
    """A member has the NOSPACE alarm, so the cluster accepts only reads and deletes."""


class Compacted(Refused):
    """The revision has been compacted."""


# etcd: api/v3rpc/rpctypes/error.go and server/auth/store.go. The texts are those of 3.5, 3.6 and 3.7. The
# statuses of gRPC and the prefixes differ between them, so the text decides.
_BY_MESSAGE: Final[dict[str, type[Refused]]] = {
    "no leader": NoLeader,
    "user name is empty": PermissionDenied,
    "authentication failed, invalid user ID or password": PermissionDenied,
    "invalid auth token": PermissionDenied,
    "revision of auth store is old": PermissionDenied,
    "revision in header is old": PermissionDenied,
    "permission denied": PermissionDenied,
    "unhealthy cluster": UnhealthyCluster,
    "re-configuration failed due to not enough started members": NotEnoughStartedMembers,
    "too many learner members in cluster": TooManyLearners,
    "can only promote a learner member which is in sync with leader": LearnerNotReady,
    "can only promote a learner member": NotALearner,
    "member not found": MemberNotFound,
    "member ID already exist": MemberExists,
    "Peer URLs already exists": MemberExists,
    "rpc not supported for learner": LearnerUnsupported,
    "not leader": NotLeader,
    "bad leader transferee": BadLeaderTransferee,
    "mvcc: database space exceeded": NoSpace,
    "mvcc: required revision has been compacted": Compacted,
}
_BY_CODE: Final[dict[str, type[Refused]]] = {
    "PERMISSION_DENIED": PermissionDenied,
    "UNAUTHENTICATED": PermissionDenied,
    "UNAVAILABLE": Unavailable,
}


def refusal(call: str, code: str, message: str) -> Refused:
    """Returns the error for an answer of etcd; for the arguments see `Refused`."""
    kind = _BY_MESSAGE.get(_reason(message)) or _BY_CODE.get(code) or Refused
    return kind(call, code, message)


def _reason(message: str) -> str:
    """Returns etcd's message without the name of the part of etcd that sent it."""
    return message.removeprefix("etcdserver: ").removeprefix("auth: ")
