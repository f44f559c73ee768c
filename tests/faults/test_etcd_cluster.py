"""EtcdCluster with faults at its calls: no acknowledged write is lost, and the final state is the same."""

from collections.abc import Iterator, Sequence

import pytest

from pilothouse.testing import ModelApi
from pilothouse.testing.controllers.pods import CLAIM, POD
from tests.faults.etcd_life import CLUSTERS, KEY, EtcdLife, key
from tests.faults.sampling import sample


class Create(EtcdLife):
    """A cluster of three is created."""

    planned = True

    def play(self, user: ModelApi) -> Iterator[str | float]:
        self.begin(user, size=3, version="3.6.14")
        yield "created"


class Heal(EtcdLife):
    """Members of a cluster of three lose their process, their pod, their data, and both."""

    def play(self, user: ModelApi) -> Iterator[str | float]:
        self.begin(user, size=3, version="3.6.14")
        yield "created"
        self.world.kill(self.followers(user)[0])
        yield "killed a process"
        user.remove(POD, key(self.followers(user)[0]))
        yield "deleted a pod"
        gone = self.followers(user)[0]
        user.remove(CLAIM, key(gone))
        user.remove(POD, key(gone))
        yield "deleted a pod and its claim"
        wiped = self.followers(user)[0]
        self.world.wipe(user, wiped)
        self.world.kill(wiped)
        yield "wiped a volume"
        for name in self.pods(user):
            user.remove(POD, key(name))
        yield "deleted all pods"


class Resize(EtcdLife):
    """A cluster grows from three to five members and shrinks again, and to one."""

    planned = True

    def play(self, user: ModelApi) -> Iterator[str | float]:
        self.begin(user, size=3, version="3.6.14")
        yield "created"
        self.edit(user, size=5)
        yield "five"
        self.edit(user, size=3)
        yield "three"
        self.edit(user, size=1)
        yield "one"
        self.edit(user, size=3)
        yield "three again"


class Upgrade(EtcdLife):
    """A cluster of three is upgraded through two minors, after a mistyped version."""

    planned = True

    def play(self, user: ModelApi) -> Iterator[str | float]:
        self.begin(user, size=3, version="3.5.33")
        yield "created"
        self.edit(user, version="3.6.99")
        yield "mistyped"
        self.edit(user, version="3.6.14")
        yield "corrected"
        self.edit(user, version="3.7.3")
        yield "3.7"


class Resume(EtcdLife):
    """An EtcdCluster is deleted and created again on its retained volumes."""

    def play(self, user: ModelApi) -> Iterator[str | float]:
        self.begin(user, size=3, version="3.6.14")
        yield "created"
        user.remove(CLUSTERS, KEY)
        yield "deleted"
        user.put(CLUSTERS, KEY.name, spec={"size": 3, "version": "3.6.14"})
        yield "created again"


SCENARIOS: Sequence[type[EtcdLife]] = (Create, Heal, Resize, Upgrade, Resume)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_faults_do_not_change_the_result(
    scenario: type[EtcdLife], capsys: pytest.CaptureFixture[str]
) -> None:
    matrix = sample(scenario, writes=20, reads=5, pairs=5)
    with capsys.disabled():
        print(f"\n{scenario.__name__}: {matrix}")  # noqa: T201 - shows the runs per minute
    matrix.require_converged()
