"""The playbook on a model of the API server, under virtual time; and with a fault at each of its calls."""

from collections.abc import Iterator, Sequence

from greeter_operator.playbook import watch
from greeter_operator.types import GREETING
from pilothouse import CONFIG_MAP, ObjectKey, Watch
from pilothouse.testing import ModelApi, Process, Scenario, explore, play

KEY = ObjectKey("default", "sample")


class Life(Scenario):
    """A person makes a Greeting, changes it, breaks what was made of it, and deletes it."""

    def __init__(self) -> None:
        self.said: list[str | None] = []

    def watches(self, process: Process) -> Sequence[Watch]:
        """What a new process of the operator watches."""
        return [watch()]

    def play(self, user: ModelApi) -> Iterator[str | float]:
        """What the person does; each name is a step after which all must settle."""
        user.put(GREETING.resource, KEY.name, spec={"message": "Hello"})
        yield "made"
        self.look(user)
        user.put(GREETING.resource, KEY.name, spec={"message": "Good evening"})
        yield "changed"
        self.look(user)
        user.put(CONFIG_MAP, KEY.name, data={"message": "Go away"})
        yield "broken by somebody else"
        self.look(user)
        user.remove(GREETING.resource, KEY)
        yield "deleted"
        self.look(user)

    def look(self, user: ModelApi) -> None:
        """Notes what the ConfigMap says."""
        found = user.exists(CONFIG_MAP, KEY)
        self.said.append(user.read(CONFIG_MAP, KEY)["data"]["message"] if found else None)


def test_the_config_map_always_says_what_the_object_asks_for() -> None:
    life = Life()
    run = play(life)
    assert run.failure == ""
    assert life.said == ["Hello", "Good evening", "Good evening", None]


def test_whatever_goes_wrong_it_ends_the_same() -> None:
    explore(Life).require_converged()
