"""Authentication and authorization of metrics readers (TokenReview, SubjectAccessReview).

Works like WithAuthenticationAndAuthorization of controller-runtime: a reader sends the token of its service
account, which needs the permission to `get` the path /metrics.
"""

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple

import msgspec

from pilothouse.kube import Api, KubeError, ObjectMeta, Resource

log = logging.getLogger(__name__)

# Seconds for which a verdict is cached. controller-runtime caches a token for a minute, too.
ALLOWED_SECONDS = 60.0
REFUSED_SECONDS = 10.0
REMEMBERED = 100


class User(msgspec.Struct, frozen=True, omit_defaults=True):
    """The user of a token. Both reviews have the same fields, except for the one with the name."""

    username: str = ""
    uid: str = ""
    groups: list[str] = []
    extra: Mapping[str, list[str]] = {}


class TokenReviewStatus(msgspec.Struct, frozen=True):
    """The result of a TokenReview: whether the token is valid, and its user."""

    authenticated: bool = False
    user: User = User()


class TokenReview(msgspec.Struct, frozen=True):
    """The view of a TokenReview."""

    metadata: ObjectMeta = ObjectMeta()
    status: TokenReviewStatus = TokenReviewStatus()


class AccessReviewStatus(msgspec.Struct, frozen=True):
    """The result of a SubjectAccessReview: whether the user has the permission."""

    allowed: bool = False


class AccessReview(msgspec.Struct, frozen=True):
    """The view of a SubjectAccessReview."""

    metadata: ObjectMeta = ObjectMeta()
    status: AccessReviewStatus = AccessReviewStatus()


TOKEN_REVIEW: Resource[TokenReview] = Resource(
    "authentication.k8s.io", "v1", "TokenReview", "tokenreviews", TokenReview, namespaced=False
)
ACCESS_REVIEW: Resource[AccessReview] = Resource(
    "authorization.k8s.io",
    "v1",
    "SubjectAccessReview",
    "subjectaccessreviews",
    AccessReview,
    namespaced=False,
)


class Verdict(NamedTuple):
    """The cached verdict about a token, and when it expires (loop time)."""

    status: HTTPStatus
    until: float


class MetricsReaders:
    """Decides whether a token may read the metrics.

    Args:
        api: The client for the API server. It needs permission to create tokenreviews and
            subjectaccessreviews.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._verdicts: dict[bytes, Verdict] = {}

    async def verdict(self, token: str) -> HTTPStatus:
        """Returns the status to answer with.

        OK, UNAUTHORIZED, FORBIDDEN, or SERVICE_UNAVAILABLE if the API server cannot review the token.
        """
        if not token:
            return HTTPStatus.UNAUTHORIZED
        now = asyncio.get_running_loop().time()
        name = hashlib.sha256(token.encode()).digest()
        known = self._verdicts.get(name)
        if known is not None and now < known.until:
            return known.status
        try:
            status = await self._review(token)
        except KubeError as error:
            log.warning("Refusing a request for /metrics: cannot review its token: %s", error)
            return HTTPStatus.SERVICE_UNAVAILABLE
        holds = ALLOWED_SECONDS if status is HTTPStatus.OK else REFUSED_SECONDS
        self._verdicts.pop(name, None)
        while len(self._verdicts) >= REMEMBERED:
            del self._verdicts[next(iter(self._verdicts))]
        self._verdicts[name] = Verdict(status, now + holds)
        return status

    async def _review(self, token: str) -> HTTPStatus:
        review = await self._api.create(TOKEN_REVIEW, _body(TOKEN_REVIEW, {"token": token}))
        if not review.status.authenticated:
            return HTTPStatus.UNAUTHORIZED
        user = review.status.user
        spec = {
            "user": user.username,
            "uid": user.uid,
            "groups": user.groups,
            "extra": user.extra,
            "nonResourceAttributes": {"path": "/metrics", "verb": "get"},
        }
        access = await self._api.create(ACCESS_REVIEW, _body(ACCESS_REVIEW, spec))
        return HTTPStatus.OK if access.status.allowed else HTTPStatus.FORBIDDEN


def _body(resource: Resource[TokenReview] | Resource[AccessReview], spec: object) -> dict[str, object]:
    return {"apiVersion": resource.api_version, "kind": resource.kind, "spec": spec}
