"""The typed client: objects are read into the view that their `Resource` declares."""

from collections.abc import Mapping
from types import TracebackType
from typing import Self, TypeVar

from pilothouse.kube import codec
from pilothouse.kube.answers import read_object
from pilothouse.kube.api import PatchType
from pilothouse.kube.config import ClientConfig
from pilothouse.kube.objects import KubeObject, ObjectKey
from pilothouse.kube.reader import Reader, accepted
from pilothouse.kube.resource import Resource
from pilothouse.kube.transport import DEADLINE, JSON, Transport

T = TypeVar("T", bound=KubeObject)


class Client(Reader):
    """Speaks to one API server.

    An async context manager; all methods raise `KubeError`s and nothing else of their own. Every request has
    a deadline of 30 s, retries included; a caller that has less time wraps the call in `asyncio.timeout`.

    Args:
        config: the server and the credentials.
        user_agent: `program/version`; the part before the slash is the field manager of server-side applies.
        connections: requests in flight at most; watches come on top.
    """

    def __init__(self, config: ClientConfig, *, user_agent: str, connections: int = 32) -> None:
        self.config = config
        self._field_manager = user_agent.partition("/")[0]
        super().__init__(Transport(config, user_agent=user_agent, connections=connections))

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._transport.__aexit__(kind, error, traceback)

    async def create(self, resource: Resource[T], body: object, *, namespace: str = "") -> T:
        """Create an object and return it as stored.

        Args:
            resource: the kind.
            body: the object: a Struct, a dict, or JSON as bytes; with apiVersion and kind.
            namespace: where, for a namespaced kind.

        Raises:
            AlreadyExists: there is one of that name.
            Invalid: it breaks the schema or a rule; `causes` name the fields.
        """
        answer = await self._transport.request(
            "POST", resource.path(namespace), body=_json(body), accept=accepted(resource)
        )
        return read_object(resource, answer)

    async def patch(
        self,
        resource: Resource[T],
        key: ObjectKey,
        body: object,
        *,
        type: PatchType,  # noqa: A002 - the API's own word
        subresource: str = "",
        field_manager: str = "",
        force: bool = False,
        dry_run: bool = False,
    ) -> T:
        """Change some fields of an object and return it as stored.

        Args:
            resource: the kind.
            key: the object.
            body: the patch: a Struct, a dict, a list (JSON patch), or JSON as bytes. A
                `metadata.resourceVersion` in a merge patch or an apply makes the server refuse when the
                object has changed since.
            type: what kind of patch it is.
            subresource: such as `status`.
            field_manager: who owns the fields; by default this program.
            force: take fields over from another manager (APPLY only).
            dry_run: change nothing, and return what would be stored.

        Raises:
            Conflict: the object has changed since it was read, or another manager owns a field.
            NotFound: there is no such object (APPLY creates it instead).
        """
        params = {}
        if field_manager or type is PatchType.APPLY:
            params["fieldManager"] = field_manager or self._field_manager
        if force:
            params["force"] = "true"
        if dry_run:
            params["dryRun"] = "All"
        answer = await self._transport.request(
            "PATCH",
            resource.path(*key, subresource),
            params=params,
            body=_json(body),
            content_type=type.value,
            accept=accepted(resource),
        )
        return read_object(resource, answer)

    async def delete(
        self,
        resource: Resource[T],
        key: ObjectKey,
        *,
        uid: str = "",
        resource_version: str = "",
        propagation: str = "Background",
        grace_seconds: int | None = None,
    ) -> None:
        """Ask for an object's deletion. It is gone once its finalizers are.

        Args:
            resource: the kind.
            key: the object.
            uid: delete this object only, not another that has taken its name.
            resource_version: delete it only as it was read.
            propagation: `Background`, `Foreground` or `Orphan`: what happens to what it owns.
            grace_seconds: for pods; None leaves it to the object.

        Raises:
            NotFound: there is no such object.
            Conflict: a precondition does not hold.
        """
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        options: dict[str, object] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": propagation,
            "preconditions": {name: value for name, value in preconditions.items() if value},
        }
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        await self._transport.request("DELETE", resource.path(*key), body=_json(options))

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = JSON,
        accept: str = JSON,
        deadline: float = DEADLINE,
    ) -> bytes:
        """Send any request and return the raw answer: for odd endpoints.

        Args:
            method: the HTTP verb.
            path: from the server's root, such as `/version`.
            params: the query.
            body: a Struct, a dict, a list, or JSON as bytes; None for none.
            content_type: of the body.
            accept: the content types that the answer may have.
            deadline: seconds for the whole, retries included.
        """
        return await self._transport.request(
            method,
            path,
            params=params,
            body=None if body is None else _json(body),
            content_type=content_type,
            accept=accept,
            deadline=deadline,
        )


def _json(body: object) -> bytes:
    return body if isinstance(body, bytes) else codec.encode(body)
