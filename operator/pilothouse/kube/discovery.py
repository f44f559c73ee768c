"""Discovery: finds the resource of a kind by the name that a user types."""

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import msgspec

from pilothouse.kube.api import Api
from pilothouse.kube.errors import NotFound, Undecodable
from pilothouse.kube.objects import KubeObject, ObjectMeta
from pilothouse.kube.resource import Resource

T = TypeVar("T", bound=KubeObject)

# Aggregated discovery (KEP-3352), since Kubernetes 1.30: all groups in one response, preferred version first.
_ACCEPT = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


class _GroupVersionKind(msgspec.Struct):
    kind: str = ""


class _Resource(msgspec.Struct, rename="camel"):
    resource: str
    response_kind: _GroupVersionKind = msgspec.field(default_factory=_GroupVersionKind)
    scope: str = ""
    singular_resource: str = ""
    short_names: list[str] = []


class _Version(msgspec.Struct):
    version: str
    resources: list[_Resource] = []


class _Group(msgspec.Struct):
    metadata: ObjectMeta
    versions: list[_Version] = []


class _Groups(msgspec.Struct):
    items: list[_Group] = []


class _Served(NamedTuple):
    """A kind in one of its versions."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    names: frozenset[str]


class Discovery:
    """Finds resources by kind, plural, singular or short name, as kubectl does.

    The first lookup sends two requests (core group, other groups). Later lookups send them again only for an
    unknown name, because its CRD may be new.

    Args:
        client: The client for the API server.
    """

    def __init__(self, client: Api) -> None:
        self._client = client
        self._served: list[_Served] = []

    async def resolve(self, name: str, view: type[T]) -> Resource[T]:
        """Returns the resource with the given name, in the version that the API server prefers.

        If several groups have the name, the server's order decides, core first. `NAME.GROUP` selects a group.

        Args:
            name: A kind, plural, singular or short name in upper or lower case, such as `FlightTicket`,
                `pods`, `deploy` or `flighttickets.flights.com`.
            view: The view that objects are decoded into.

        Raises:
            NotFound: The API server serves no kind of that name.
        """
        best = (await self._find(name))[0]
        return Resource(best.group, best.version, best.kind, best.plural, view, namespaced=best.namespaced)

    async def _find(self, name: str) -> list[_Served]:
        found = self._matches(name)
        if not found:
            self._served = [*await self._read("/api"), *await self._read("/apis")]
            found = self._matches(name)
        if not found:
            raise NotFound(
                404,
                "NotFound",
                f"the API server has no kind named {name!r}: install its CustomResourceDefinition, or check "
                "the name with 'kubectl api-resources'",
            )
        return found

    def _matches(self, name: str) -> list[_Served]:
        short, _, group = name.lower().partition(".")
        return [each for each in self._served if short in each.names and (not group or group == each.group)]

    async def _read(self, path: str) -> list[_Served]:
        body = await self._client.request("GET", path, accept=_ACCEPT)
        try:
            groups = msgspec.json.decode(body, type=_Groups)
        except msgspec.DecodeError as error:
            raise Undecodable(f"the list of kinds at {path} cannot be read: {error}") from error
        return list(_flatten(groups))


def _flatten(groups: _Groups) -> Iterator[_Served]:
    for group in groups.items:
        for version in group.versions:
            for each in version.resources:
                kind = each.response_kind.kind
                names = {each.resource, each.singular_resource, kind.lower(), *each.short_names} - {""}
                yield _Served(
                    group.metadata.name,
                    version.version,
                    kind,
                    each.resource,
                    each.scope == "Namespaced",
                    frozenset(names),
                )
