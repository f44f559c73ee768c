"""demo.pilothouse.dev/v1: what a Greeting is. CRD and bundle are written from it: see the README."""

from typing import Annotated

import msgspec

from pilothouse.api import Column, Kind, ManagedResource, Rule, field
from pilothouse.kube import Condition, ObjectMeta, Resource


class GreetingSpec(msgspec.Struct, frozen=True):
    """What people ask for."""

    message: Annotated[
        str, field("What to say, at most 1000 characters.", title="Message", maxLength=1000)
    ] = ""


class GreetingStatus(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """What there is."""

    config_map: Annotated[str, field("The ConfigMap that holds the message.", title="ConfigMap")] = ""
    observed_generation: Annotated[
        int, field("The metadata.generation that the status describes.", format="int64")
    ] = 0
    conditions: Annotated[
        tuple[Condition, ...],
        field(
            "`Ready` is True while everything is as the spec asks; its message says what is missing.",
            title="Conditions",
            descriptors=("io.kubernetes.conditions",),
            map_keys=("type",),
        ),
    ] = ()


class Greeting(msgspec.Struct, frozen=True):
    """The view of it that the operator reads."""

    metadata: ObjectMeta = ObjectMeta()
    spec: Annotated[
        GreetingSpec,
        field(
            "What to say.",
            rules=[
                Rule(
                    "has(self.message) && self.message != ''",
                    "say something, for example message: Hello",
                    field_path=".message",
                    reason="FieldValueRequired",
                )
            ],
        ),
    ] = GreetingSpec()
    status: Annotated[GreetingStatus, field("What there is, written by the operator.")] = GreetingStatus()


GREETING: Kind[Greeting] = Kind(
    resource=Resource("demo.pilothouse.dev", "v1", "Greeting", "greetings", Greeting),
    title="Greeting",
    description="A Greeting asks for a message, which the operator puts into a ConfigMap of the same name.",
    columns=(
        Column("Message", ".spec.message"),
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        Column("Age", ".metadata.creationTimestamp", type="date"),
    ),
    manages=(ManagedResource("ConfigMap", "v1"), ManagedResource("Event", "v1")),
)


class ConfigMap(msgspec.Struct, frozen=True):
    """Of a ConfigMap the operator needs to know no more than that it is there."""

    metadata: ObjectMeta = ObjectMeta()


CONFIG_MAP = Resource("", "v1", "ConfigMap", "configmaps", ConfigMap)
