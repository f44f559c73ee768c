"""Each way in which a member's keys can contradict the history is found."""

from __future__ import annotations

import pytest
import pytest_asyncio

from etcd_operator.errors import EtcdError
from tests.etcd.history import Begin, End, History, Kind, Operation, Outcome
from tests.etcd.linearizability import check
from tests.etcd.read_back import differences, losses, read_back
from tests.unit.etcd_writer.store import Refusing, Store

pytestmark = [pytest.mark.usefixtures("virtual_time"), pytest.mark.timeout(600)]


class Scene:
    """A history, and a member whose keys agree with it at first."""

    def __init__(self) -> None:
        self.store = Store()
        self.operations: list[Operation] = []

    def write(self, key: str, value: str, outcome: Outcome = Outcome.OK, *, effect: bool = True) -> None:
        """Writes a key and records it."""
        if effect:
            self.store.write(key.encode(), value.encode())
        number = len(self.operations)
        at = 2 * number
        revision = self.store.revision if outcome is Outcome.OK else 0
        self.operations.append(Operation(0, number, Kind.WRITE, key, at, at + 1, outcome, value, revision))

    @property
    def history(self) -> History:
        return History(Begin(0, 1, 2), tuple(self.operations), End(1))

    async def losses(self, store: Store | None = None) -> list[str]:
        """Returns what is wrong with a member: by default with the one that was written to."""
        return losses(self.history, await read_back(self.history, {"a": store or self.store}))


@pytest_asyncio.fixture
async def scene() -> Scene:
    """Two keys, one of which was written twice."""
    scene = Scene()
    scene.write("own", "1")
    scene.write("shared", "2")
    scene.write("shared", "3")
    return scene


async def test_a_member_that_agrees_has_no_losses(scene: Scene) -> None:
    assert await scene.losses() == []


async def test_a_missing_key_is_a_loss_on_the_member_that_misses_it(scene: Scene) -> None:
    other = scene.store.copy()
    del other.keys[b"own"]
    contents = await read_back(scene.history, {"a": scene.store, "b": other})
    assert losses(scene.history, contents) == ["b: own does not exist, but 1 writes were acknowledged"]
    assert differences(contents) == ["own: a has '1' at revision 2, but b has no such key"]


async def test_an_older_value_is_a_loss(scene: Scene) -> None:
    old = Store()
    old.write(b"own", b"1")
    old.write(b"shared", b"2")
    [loss] = await scene.losses(old)
    assert loss == "a: shared has '2' at revision 3, older than the write acknowledged at revision 4"


async def test_a_loss_that_a_later_write_hides_is_found_by_the_version() -> None:
    scene = Scene()
    scene.write("shared", "1")
    scene.write("shared", "2", effect=False)  # Acknowledged, and lost.
    scene.write("shared", "3")
    [loss] = await scene.losses()
    assert "shared was written 2 times, but 3 writes were acknowledged and 0 had no answer" in loss


async def test_another_value_at_the_acknowledged_revision_is_a_loss(scene: Scene) -> None:
    # As in a second cluster, founded under the same name, that has assigned the same revisions again.
    other = Store()
    other.write(b"own", b"1")
    other.write(b"shared", b"2")
    other.write(b"shared", b"foreign")
    [loss] = await scene.losses(other)
    assert loss == "a: shared has 'foreign' at revision 4, which no client wrote at that revision"


async def test_the_value_of_an_earlier_write_at_the_revision_of_the_last_one_is_a_loss(scene: Scene) -> None:
    other = Store()
    other.write(b"own", b"1")
    other.write(b"shared", b"3")
    other.write(b"shared", b"2")
    [loss] = await scene.losses(other)
    assert loss == "a: shared has '2' at revision 4, which no client wrote at that revision"


async def test_a_write_that_no_client_made_is_found(scene: Scene) -> None:
    scene.store.write(b"shared", b"foreign")
    [loss] = await scene.losses()
    assert "has 'foreign' at revision 5, which no client wrote" in loss


async def test_an_attempt_that_failed_must_not_have_an_effect(scene: Scene) -> None:
    scene.write("own", "4", Outcome.FAILED, effect=False)
    assert await scene.losses() == []
    scene.store.write(b"own", b"4")
    assert len(await scene.losses()) == 1


@pytest.mark.parametrize("effect", [True, False])
async def test_an_attempt_without_an_answer_may_have_an_effect_or_not(scene: Scene, effect: bool) -> None:
    scene.write("own", "4", Outcome.UNKNOWN, effect=effect)
    scene.write("new", "5", Outcome.UNKNOWN, effect=effect)
    assert await scene.losses() == []


async def test_an_attempt_without_an_answer_does_not_excuse_the_loss_of_a_later_one() -> None:
    scene = Scene()
    scene.write("own", "1", Outcome.UNKNOWN)
    scene.write("own", "2", effect=False)
    scene.operations[-1] = Operation(0, 1, Kind.WRITE, "own", 2, 3, Outcome.OK, "2", revision=3)
    [loss] = await scene.losses()
    assert loss == "a: own has '1' at revision 2, older than the write acknowledged at revision 3"


async def test_members_that_differ_in_what_no_one_acknowledged_are_reported(scene: Scene) -> None:
    other = scene.store.copy()
    scene.write("own", "4", Outcome.UNKNOWN)
    contents = await read_back(scene.history, {"a": scene.store, "b": other})
    assert losses(scene.history, contents) == []
    assert differences(contents) == ["own: a has '4' at revision 5, but b has '1' at revision 2"]


async def test_the_reads_continue_the_history(scene: Scene) -> None:
    [contents] = await read_back(scene.history, {"a": scene.store})
    assert check([*scene.operations, *contents.reads]) == ""
    lost = Store()
    lost.write(b"own", b"1")
    lost.write(b"shared", b"2")
    [contents] = await read_back(scene.history, {"a": lost})
    assert check([*scene.operations, *contents.reads]) == "The operations on shared are not linearizable."


async def test_a_read_is_retried_and_a_member_that_does_not_answer_is_no_proof(scene: Scene) -> None:
    store = Refusing(6)
    for key in scene.store.keys.values():
        store.keys[key.key] = key
    assert await scene.losses(store) == []
    with pytest.raises(EtcdError, match="not yet"):
        await scene.losses(Refusing(1000))
