"""An operator in 18 lines: for each Hello, it keeps a ConfigMap with a greeting."""

from typing import Annotated

import msgspec

from pilothouse import CONFIG_MAP, Kind, ObjectMeta, Play, Status, Watch, field, main, task


class HelloSpec(msgspec.Struct, frozen=True):
    who: Annotated[str, field("Whom to greet.", minLength=1)] = "world"


class Hello(msgspec.Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: HelloSpec = HelloSpec()
    status: Status = Status()


HELLO = Kind(Hello, group="tutorial.pilothouse.dev", version="v1", description="Greets someone by name.")


@task("the ConfigMap greets")
async def apply_config_map(play: Play[Hello, Status]) -> None:
    greeting = f"Hello, {play.object.spec.who}!"
    await play.apply(CONFIG_MAP, {"data": {"greeting": greeting}})
    play.ready_message = greeting


if __name__ == "__main__":
    raise SystemExit(main("hello", [Watch(HELLO, tasks=[apply_config_map], owns=[CONFIG_MAP])]))
