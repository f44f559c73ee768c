"""The kind Greeting, demo.pilothouse.dev/v1. The CRD and the bundle are generated from this file."""

from typing import Annotated

import msgspec

from pilothouse import Column, Kind, ManagedResource, ObjectMeta, Rule, Status, field


class GreetingSpec(msgspec.Struct, frozen=True):
    """The desired state, which users write."""

    message: Annotated[
        str, field("The message, at most 1000 characters.", title="Message", maxLength=1000)
    ] = ""


class GreetingStatus(Status, frozen=True):
    """The observed state, which the operator writes. The framework sets observedGeneration and conditions."""

    config_map: Annotated[str, field("The ConfigMap that holds the message.", title="ConfigMap")] = ""


class Greeting(msgspec.Struct, frozen=True):
    """The view of a Greeting that the operator reads."""

    metadata: ObjectMeta = ObjectMeta()
    spec: Annotated[
        GreetingSpec,
        field(
            "The desired state.",
            rules=[
                Rule(
                    "has(self.message) && self.message != ''",
                    "set a message, for example message: Hello",
                    field_path=".message",
                    reason="FieldValueRequired",
                )
            ],
        ),
    ] = GreetingSpec()
    status: Annotated[GreetingStatus, field("The observed state, written by the operator.")] = (
        GreetingStatus()
    )


GREETING: Kind[Greeting] = Kind(
    Greeting,
    group="demo.pilothouse.dev",
    version="v1",
    description="A Greeting has a message, which the operator writes into a ConfigMap of the same name.",
    columns=(
        Column("Message", ".spec.message"),
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        Column("Age", ".metadata.creationTimestamp", type="date"),
    ),
    manages=(ManagedResource("ConfigMap", "v1"),),
)
