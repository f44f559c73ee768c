"""An operator in 60 lines: a Hello becomes a ConfigMap that greets somebody."""

import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated

import msgspec

from pilothouse.api import Column, Kind, field
from pilothouse.cli import main
from pilothouse.kube import Condition, ObjectMeta, PartialObjectMetadata, Resource
from pilothouse.playbook import Play, Playbook, TaskFailed, Watch, task


class HelloSpec(msgspec.Struct, frozen=True):
    who: Annotated[str, field("Who is greeted.")] = "world"


class HelloStatus(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    observed_generation: Annotated[int, field("The generation that this is about.", format="int64")] = 0
    conditions: Annotated[tuple[Condition, ...], field("Ready, and why.", map_keys=("type",))] = ()


class Hello(msgspec.Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: Annotated[HelloSpec, field("What is asked for.")] = HelloSpec()
    status: Annotated[HelloStatus, field("What there is.")] = HelloStatus()


HELLO: Kind[Hello] = Kind(
    resource=Resource("tutorial.pilothouse.dev", "v1", "Hello", "hellos", Hello),
    title="Hello",
    description="Greets somebody.",
    columns=(Column("Who", ".spec.who"), Column("Ready", '.status.conditions[?(@.type=="Ready")].message')),
)

CONFIG_MAP = Resource("", "v1", "ConfigMap", "configmaps", PartialObjectMetadata)


@task("somebody is named")
async def check_name(play: Play[Hello, HelloStatus]) -> None:
    if not play.object.spec.who.strip():
        raise TaskFailed("NobodyNamed", "spec.who is empty: name somebody: world", permanent=True)


@task("the ConfigMap greets")
async def apply_config_map(play: Play[Hello, HelloStatus]) -> None:
    greeting = f"Hello, {play.object.spec.who}!"
    await play.apply(CONFIG_MAP, {"data": {"greeting": greeting}})
    play.ready_message = greeting


@asynccontextmanager
async def watches(variables: Mapping[str, str]) -> AsyncIterator[Sequence[Watch]]:
    playbook = Playbook(Play[Hello, HelloStatus], tasks=[check_name, apply_config_map])
    yield [Watch(HELLO.resource, playbook, owns=[CONFIG_MAP])]


if __name__ == "__main__":
    sys.exit(main("hello", watches))
