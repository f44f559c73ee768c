"""Runs the playbook on a model of the API server in virtual time, also with a fault at each of its calls."""

from collections.abc import Iterator, Sequence

from greeter_operator.playbook import watch
from greeter_operator.types import GREETING
from pilothouse import CONFIG_MAP, ObjectKey, Watch
from pilothouse.testing import ModelApi, Process, Scenario, explore, play

KEY = ObjectKey("default", "sample")


class Life(Scenario):
    """A user creates a Greeting, changes it and deletes it. Another client changes its ConfigMap."""

    def __init__(self) -> None:
        self.messages: list[str | None] = []

    def watches(self, process: Process) -> Sequence[Watch]:
        """Returns what a new process of the operator watches."""
        return [watch()]

    def play(self, user: ModelApi) -> Iterator[str | float]:
        """Makes the changes. After each yield, the operator has reconciled everything."""
        user.put(GREETING.resource, KEY.name, spec={"message": "Hello"})
        yield "created"
        self.note(user)
        user.put(GREETING.resource, KEY.name, spec={"message": "Good evening"})
        yield "changed"
        self.note(user)
        user.put(CONFIG_MAP, KEY.name, data={"message": "Go away"})
        yield "changed by another client"
        self.note(user)
        user.remove(GREETING.resource, KEY)
        yield "deleted"
        self.note(user)

    def note(self, user: ModelApi) -> None:
        """Records the message in the ConfigMap. None means that there is no ConfigMap."""
        found = user.exists(CONFIG_MAP, KEY)
        self.messages.append(user.read(CONFIG_MAP, KEY)["data"]["message"] if found else None)


def test_the_config_map_always_has_the_message_of_the_object() -> None:
    life = Life()
    run = play(life)
    assert run.failure == ""
    assert life.messages == ["Hello", "Good evening", "Good evening", None]


def test_every_fault_at_every_call_ends_in_the_same_state() -> None:
    explore(Life).require_converged()
