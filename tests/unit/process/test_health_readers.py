"""Metrics readers: the API server reviews each token once, and the verdict expires."""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
import pytest

from pilothouse.kube import Forbidden, Resource
from pilothouse.process.readers import MetricsReaders

pytestmark = pytest.mark.usefixtures("virtual_time")


class Reviews:
    """A stand-in for the reviews of the API server."""

    def __init__(self, users: Mapping[str, str]) -> None:
        self.users = dict(users)
        self.allowed = {"prometheus"}
        self.asked: list[dict[str, Any]] = []
        self.broken = False

    async def create(self, resource: Resource[Any], body: Any) -> Any:
        if self.broken:
            raise Forbidden(403, "Forbidden", "tokenreviews is forbidden: cannot create")
        self.asked.append(body)
        if body["kind"] == "TokenReview":
            user = self.users.get(body["spec"]["token"])
            status = {"authenticated": True, "user": {"username": user, "groups": ["g"]}} if user else {}
        else:
            status = {"allowed": body["spec"]["user"] in self.allowed}
        return msgspec.convert({"metadata": {}, "status": status}, resource.view)


@pytest.fixture
def reviews() -> Reviews:
    return Reviews({"p": "prometheus", "n": "nobody"})


@pytest.fixture
def readers(reviews: Reviews) -> MetricsReaders:
    return MetricsReaders(reviews)  # type: ignore[arg-type]  # as far as it is asked


async def test_a_token_must_be_known_and_its_user_allowed(readers: MetricsReaders, reviews: Reviews) -> None:
    verdicts = [await readers.verdict(token) for token in ("p", "n", "x", "")]
    assert verdicts == [
        HTTPStatus.OK,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.UNAUTHORIZED,
    ]
    access = reviews.asked[1]["spec"]
    assert access["nonResourceAttributes"] == {"path": "/metrics", "verb": "get"}
    assert (access["user"], access["groups"]) == ("prometheus", ["g"])


async def test_a_permission_is_cached_for_a_minute_and_a_refusal_for_ten_seconds(
    readers: MetricsReaders, reviews: Reviews
) -> None:
    for _ in range(5):
        await readers.verdict("p")
        await readers.verdict("x")
    assert len(reviews.asked) == 3
    reviews.users["x"] = "prometheus"
    await asyncio.sleep(11)
    assert await readers.verdict("x") is HTTPStatus.OK
    del reviews.users["p"]
    assert await readers.verdict("p") is HTTPStatus.OK
    await asyncio.sleep(50)
    assert await readers.verdict("p") is HTTPStatus.UNAUTHORIZED


async def test_many_tokens_take_no_more_memory_than_few(readers: MetricsReaders, reviews: Reviews) -> None:
    for n in range(500):
        await readers.verdict(f"wrong-{n}")
    assert len(readers._verdicts) == 100


async def test_a_failed_review_refuses_the_reader_and_is_logged_without_the_token(
    readers: MetricsReaders, reviews: Reviews, caplog: pytest.LogCaptureFixture
) -> None:
    reviews.broken = True
    assert await readers.verdict("p") is HTTPStatus.SERVICE_UNAVAILABLE
    assert "tokenreviews is forbidden" in caplog.text
    assert '"p"' not in caplog.text
    reviews.broken = False
    assert await readers.verdict("p") is HTTPStatus.OK
