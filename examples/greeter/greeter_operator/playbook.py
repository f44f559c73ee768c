"""The tasks that make what a Greeting asks for, in the order in which they run."""

from msgspec.structs import replace

from greeter_operator.types import CONFIG_MAP, GREETING, Greeting, GreetingStatus
from pilothouse.playbook import Play, Playbook, Watch, task


class GreetingPlay(Play[Greeting, GreetingStatus]):
    """One run over one Greeting. What a task finds out for the next ones becomes an attribute of it."""


@task("the ConfigMap holds the message")
async def apply_config_map(play: GreetingPlay) -> None:
    """It has the object's name, is put right when somebody changes it, and goes with the object."""
    config_map = await play.apply(CONFIG_MAP, {"data": {"message": play.object.spec.message}})
    play.status = replace(play.status, config_map=config_map.metadata.name)


def watch() -> Watch:
    """What the operator watches: Greetings, and the ConfigMaps that they own."""
    return Watch(GREETING.resource, Playbook(GreetingPlay, tasks=[apply_config_map]), owns=[CONFIG_MAP])
