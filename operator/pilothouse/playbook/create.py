"""Creation of an object that must not exist yet, with recognition of an earlier attempt."""

from contextlib import suppress
from typing import TypeVar

from pilothouse.kube import Conflict, KubeObject, ObjectMeta
from pilothouse.playbook.apply import Applied, Apply
from pilothouse.playbook.names import digest
from pilothouse.playbook.ownership import CREATED_FROM, whose
from pilothouse.playbook.plain import Json
from pilothouse.playbook.tasks import TaskFailed

K = TypeVar("K", bound=KubeObject)

ALREADY_EXISTS = "AlreadyExists"

CREATED_LENGTH = 16


def to_be_created(manifest: Json) -> Json:
    """Returns a manifest with its digest as an annotation."""
    metadata = manifest["metadata"]
    annotations = {**(metadata.get("annotations") or {}), CREATED_FROM: digest(manifest, CREATED_LENGTH)}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


class Create(Apply[K]):
    """A creation of an object from a manifest that `to_be_created` returned.

    A process may be killed after the API server has stored the object and before the operator has recorded
    that. So the object carries a digest of its manifest. An object of the owner with that digest is the
    result of an earlier attempt, even if it has changed since, and nothing is created.
    """

    _module = "play.create"

    async def run(self) -> Applied[K]:
        """Creates the object, unless an earlier attempt has created it.

        Raises:
            PlaybookError: The object is the one that is reconciled.
            TaskFailed: AlreadyExists: Another object has the name. NotSelected: The watch excludes the
                object.
            Conflict: The object was deleted and created again. Reconcile again.
            KubeError: The API server refused the request or is unreachable.
        """
        live = self._stored()
        if live is not None and self._is_from_earlier_attempt(live.metadata):
            return Applied(live, False, ())
        self._require_watched()
        self._require_selected(None)
        if live is None and not self._check:
            with suppress(Conflict):
                return await self._create()
        before = await self._read()
        if before is None:
            # The store lags behind: the object that it shows no longer exists. Or another client has just
            # created and deleted it.
            return await (self._tried(self._additions()) if self._check else self._create())
        self._require_another(before.metadata)
        if not self._is_from_earlier_attempt(before.metadata):
            raise self._exists(before.metadata)
        return Applied(self._shown(before), False, ())

    async def _create(self) -> Applied[K]:
        """Sends the object.

        It is an apply, so that a later apply owns the fields, and removes those that it leaves out. After a
        POST, they would have another entry in managedFields and stay.

        Raises:
            Conflict: An object of that name exists.
        """
        return Applied(self._shown(await self._patch_new()), True, self._additions())

    def _is_from_earlier_attempt(self, live: ObjectMeta) -> bool:
        created_from = self._manifest["metadata"]["annotations"][CREATED_FROM]
        return (
            live.annotations.get(CREATED_FROM) == created_from
            and live.deletion_timestamp is None
            and self._owns(live)
        )

    def _exists(self, live: ObjectMeta) -> TaskFailed:
        kind = self._cluster.owner
        if not self._owns(live):
            foreign = whose(live, kind, self._owner)
            why = f"it already exists and {foreign}. Delete it, or use another name for the {kind.kind}"
        elif live.deletion_timestamp is not None:
            why = "an object of that name is being deleted. The operator retries until it is gone"
        else:
            why = "it already exists and was not created from this manifest. Delete it first"
        return TaskFailed(ALREADY_EXISTS, f"Cannot create {self._what}: {why}.")
