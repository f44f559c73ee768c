"""demo.pilothouse.dev/v1: what a Greeting is. CRD and bundle are written from it: see the README."""

from typing import Annotated

import msgspec

from pilothouse import Column, Kind, ManagedResource, ObjectMeta, Rule, Status, field


class GreetingSpec(msgspec.Struct, frozen=True):
    """What people ask for."""

    message: Annotated[
        str, field("What to say, at most 1000 characters.", title="Message", maxLength=1000)
    ] = ""


class GreetingStatus(Status, frozen=True):
    """What there is. The framework fills in observedGeneration and conditions."""

    config_map: Annotated[str, field("The ConfigMap that holds the message.", title="ConfigMap")] = ""


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
    Greeting,
    group="demo.pilothouse.dev",
    version="v1",
    description="A Greeting asks for a message, which the operator puts into a ConfigMap of the same name.",
    columns=(
        Column("Message", ".spec.message"),
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        Column("Age", ".metadata.creationTimestamp", type="date"),
    ),
    manages=(ManagedResource("ConfigMap", "v1"),),
)
