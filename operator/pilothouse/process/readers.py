"""Who may read the metrics: the API server says (TokenReview, SubjectAccessReview).

As controller-runtime's WithAuthenticationAndAuthorization does it: a reader shows its service account's
token, and must have the right to `get` the path /metrics.
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

# How long an answer holds, seconds. controller-runtime remembers a token for a minute, too.
ALLOWED_SECONDS = 60.0
REFUSED_SECONDS = 10.0
REMEMBERED = 100


class User(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whose token it is. Both reviews speak of it in the same words, but for the name."""

    username: str = ""
    uid: str = ""
    groups: list[str] = []
    extra: Mapping[str, list[str]] = {}


class TokenReviewStatus(msgspec.Struct, frozen=True):
    """Whether a token is good, and whose it is."""

    authenticated: bool = False
    user: User = User()


class TokenReview(msgspec.Struct, frozen=True):
    """The view of a TokenReview's answer."""

    metadata: ObjectMeta = ObjectMeta()
    status: TokenReviewStatus = TokenReviewStatus()


class AccessReviewStatus(msgspec.Struct, frozen=True):
    """Whether a user may."""

    allowed: bool = False


class AccessReview(msgspec.Struct, frozen=True):
    """The view of a SubjectAccessReview's answer."""

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
    """What was said of a token, and until when that holds (loop time)."""

    status: HTTPStatus
    until: float


class MetricsReaders:
    """Decides about tokens.

    Args:
        api: Reaches the API server; its identity may create tokenreviews and subjectaccessreviews.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._verdicts: dict[bytes, Verdict] = {}

    async def verdict(self, token: str) -> HTTPStatus:
        """What to answer: OK; UNAUTHORIZED, FORBIDDEN, or SERVICE_UNAVAILABLE when nobody can say."""
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
            log.warning("nobody can read the metrics: a reader's token cannot be reviewed: %s", error)
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
