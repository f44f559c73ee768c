"""Whatever happens at whichever call, a change of what an object refers to reaches the object."""

from collections.abc import Iterator, Sequence

from pilothouse.kube import ObjectKey
from pilothouse.playbook import Play, Playbook, Secondary, Watch, by_index, task
from pilothouse.testing import Fault, ModelApi, Process, Scenario, explore
from tests.unit.playbook.configured import CONFIG_MAP, SECRET, TicketPlay
from tests.unit.playbook.test_mapping import secrets_of
from tests.unit.playbook.test_modules_faults import suffered
from tests.unit.tickets import TICKET

KEY = ObjectKey("default", "my-ticket")


@task("the colors of the Secrets are copied")
async def copy(play: TicketPlay) -> None:
    found = {name: play.get(SECRET, name) for name in secrets_of(play.object)}
    colors = {name: secret.metadata.labels["color"] for name, secret in found.items() if secret}
    await play.apply(CONFIG_MAP, {"data": {"colors": " ".join(colors.values())}})


class Referring(Scenario):
    """A ticket that refers to a Secret, which comes, changes and goes."""

    def watches(self, process: Process) -> Sequence[Watch]:
        return [
            Watch(
                TICKET,
                Playbook(Play, tasks=[copy]),
                resync=0,
                owns=[CONFIG_MAP],
                indexes={"secret": secrets_of},
                watches=[Secondary(SECRET, mapper=by_index("secret"))],
            )
        ]

    def play(self, user: ModelApi) -> Iterator[str | float]:
        def copied() -> object:
            return user.read(CONFIG_MAP, KEY)["data"]["colors"]

        user.put(TICKET, KEY.name, metadata={"labels": {"secrets": "one"}}, spec={"seats": 2})
        yield "the ticket is there before its Secret"
        user.put(SECRET, "one", metadata={"labels": {"color": "red"}})
        yield "the Secret appears"
        assert copied() == "red"
        user.put(SECRET, "one", metadata={"labels": {"color": "blue"}})
        yield "the Secret changes"
        assert copied() == "blue"
        user.remove(SECRET, ObjectKey("default", "one"))
        yield "the Secret is deleted"
        assert copied() == ""


def test_a_change_of_a_referred_object_reaches_the_object_under_every_fault() -> None:
    matrix = explore(Referring)
    matrix.require_converged()
    assert suffered(matrix) == set(Fault)
