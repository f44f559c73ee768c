"""The typed client. It decodes objects into the view that their `Resource` declares."""

from collections.abc import Mapping
from types import TracebackType
from typing import Self, TypeVar

from pilothouse.kube import codec
from pilothouse.kube.answers import read_object
from pilothouse.kube.api import PatchType
from pilothouse.kube.config import ClientConfig
from pilothouse.kube.objects import KubeObject, ObjectKey
from pilothouse.kube.reader import Reader, accepted
from pilothouse.kube.resource import Resource, require_flags
from pilothouse.kube.transport import DEADLINE, JSON, Transport

T = TypeVar("T", bound=KubeObject)


class Client(Reader):
    """A client for one API server. Use it as an async context manager.

    All errors of its methods are `KubeError`s. A request times out after 30 s, including retries. For a
    shorter limit, wrap the call in `asyncio.timeout`.

    Args:
        config: The API server's address and the credentials.
        user_agent: The user agent, `program/version`. The part before the slash is the field manager of
            server-side applies.
        connections: The maximum number of concurrent requests. Watches do not count.
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
        """Creates an object and returns it as stored.

        Args:
            resource: The kind.
            body: The object, with apiVersion and kind: a Struct, a dict, or JSON as bytes.
            namespace: The namespace, for a namespaced kind.

        Raises:
            AlreadyExists: An object of that name exists.
            Invalid: The object violates the schema or a rule. `causes` names the fields.
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
        """Changes some fields of an object and returns it as stored.

        Args:
            resource: The kind.
            key: The object's namespace and name.
            body: The patch: a Struct, a dict, a list (JSON patch), or JSON as bytes. With a
                `metadata.resourceVersion` in a merge patch or an apply, the API server refuses the request
                if the object has changed since that version.
            type: The format of the patch.
            subresource: A subresource, such as `status`.
            field_manager: The field manager. By default, the program's name.
            force: Whether to take over fields from another field manager (APPLY only).
            dry_run: Whether to change nothing, and return the object as it would be stored.

        Raises:
            Conflict: The object has changed since it was read, or another field manager owns a field.
            NotFound: The object does not exist. (APPLY creates it instead.)
            TypeError: A flag is not True or False.
        """
        require_flags("Client.patch", force=force, dry_run=dry_run)
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
        """Requests the deletion of an object. The object exists until its finalizers are removed.

        Args:
            resource: The kind.
            key: The object's namespace and name.
            uid: The UID of the object. If it is given, another object of the same name is not deleted.
            resource_version: The version of the object. If it is given, a newer version is not deleted.
            propagation: How owned objects are deleted: `Background`, `Foreground` or `Orphan`.
            grace_seconds: The grace period of a pod, in seconds. None: the pod's own.

        Raises:
            NotFound: The object does not exist.
            Conflict: The object has another UID or version.
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
        """Sends a request and returns the response's body, for endpoints that have no method of their own.

        Args:
            method: The HTTP method.
            path: The path from the server's root, such as `/version`.
            params: The query parameters.
            body: The body: a Struct, a dict, a list, or JSON as bytes. None: no body.
            content_type: The content type of the body.
            accept: The accepted content types of the response.
            deadline: The timeout in seconds, including retries.
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
