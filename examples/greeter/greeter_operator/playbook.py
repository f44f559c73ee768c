"""The tasks that reconcile a Greeting, in the order in which they run."""

from msgspec.structs import replace

from greeter_operator.types import GREETING, Greeting, GreetingStatus
from pilothouse import CONFIG_MAP, Play, Watch, task


@task("the ConfigMap holds the message")
async def apply_config_map(play: Play[Greeting, GreetingStatus]) -> None:
    """Applies a ConfigMap with the object's name. Kubernetes deletes the ConfigMap with the object."""
    config_map = await play.apply(CONFIG_MAP, {"data": {"message": play.object.spec.message}})
    play.status = replace(play.status, config_map=config_map.metadata.name)


def watch() -> Watch:
    """Returns what the operator watches: Greetings, and the ConfigMaps that they own."""
    return Watch(GREETING, tasks=[apply_config_map], owns=[CONFIG_MAP])
