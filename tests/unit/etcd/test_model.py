"""The model of etcd passes the same cases as real etcd, see tests/api/test_etcd_model.py."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from etcd_operator import errors
from etcd_operator.etcd import Endpoint, Etcd
from tests.etcd.contract import (
    CASES,
    TOKEN,
    Case,
    Host,
    a_silent_rejoin_loses_an_acknowledged_write,
    poison_keeps_an_acknowledged_write,
    two_of_three_founded_again_with_another_token_accept_writes,
)
from tests.etcd.model.client import ModelMember
from tests.etcd.model.flags import Flags
from tests.etcd.model.members import Members
from tests.etcd.model.process import Process
from tests.etcd.model.state import EnableAuth, Put, Volume

VERSIONS = {5: "3.5.33", 6: "3.6.14", 7: "3.7.3"}

pytestmark = pytest.mark.usefixtures("virtual_time")


class ModelHost(Host):
    """Runs members of the model. The name of a member is also its address and its name in DNS."""

    def __init__(self, minor: int) -> None:
        self.version = VERSIONS[minor]
        self.members = Members(asyncio.get_running_loop().time)
        self._processes: dict[str, Process] = {}
        self._volumes: dict[str, Volume] = {}

    def start(
        self, name: str, initial: Sequence[str], *, state: str = "new", token: str = TOKEN, minor: int = 0
    ) -> None:
        network = self.members.network
        network.addresses.add(name)
        network.names[f"{name}.example"] = name
        flags = Flags(
            name=name,
            peer_urls=(self.peer_url(name),),
            client_urls=(f"http://{name}.example:2379",),
            initial_cluster={each: (self.peer_url(each),) for each in initial},
            state=state,
            token=token,
        )
        volume = self._volumes.setdefault(name, self.members.make_volume())
        version = VERSIONS[minor] if minor else self.version
        self._processes[name] = self.members.start(flags, volume, version, name)

    def kill(self, name: str) -> None:
        self.members.kill(self._processes[name])

    def terminate(self, name: str) -> None:
        self.members.terminate(self._processes[name])

    def wipe(self, name: str) -> None:
        self.members.wipe(self._volumes[name])

    def freeze(self, name: str) -> None:
        self.members.freeze(self._processes[name])

    def thaw(self, name: str) -> None:
        self.members.thaw(self._processes[name])

    def ended(self, name: str) -> str:
        self.members.advance()
        ended = self._processes[name].exit
        return ended.message if ended else ""

    def peer_url(self, name: str) -> str:
        return f"http://{name}.example:2380"

    def etcd(self, name: str) -> Etcd:
        return ModelMember(self.members, Endpoint(name, f"{name}.example"))

    async def until(self, condition: Callable[[], Awaitable[Any]]) -> Any:
        async with asyncio.timeout(60):
            while True:
                try:
                    if found := await condition():
                        return found
                except errors.EtcdError:
                    pass
                await asyncio.sleep(0.1)

    async def enable_auth(self, name: str) -> None:
        self.members.propose(self._processes[name], EnableAuth())

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@pytest.mark.parametrize("minor", [5, 6])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_the_model_behaves_like_etcd(case: Case, minor: int) -> None:
    await case(ModelHost(minor))


async def test_the_model_finds_a_lost_write_and_only_that() -> None:
    host = ModelHost(6)
    await a_silent_rejoin_loses_an_acknowledged_write(host)
    assert host.members.lost() == [Put(b"precious", b"v")]
    host = ModelHost(6)
    await poison_keeps_an_acknowledged_write(host)
    assert host.members.lost() == []


async def test_the_model_finds_a_second_founding() -> None:
    host = ModelHost(6)
    await two_of_three_founded_again_with_another_token_accept_writes(host)
    assert len(host.members.led) == 2
    assert Put(b"old", b"v") in host.members.lost()
