"""A kind that uses everything that a declaration can say."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import msgspec

from pilothouse.api import (
    Column,
    DurationText,
    IntOrString,
    Kind,
    QuantityText,
    Rule,
    Scale,
    Version,
    core,
    field,
)
from pilothouse.kube import Condition, ObjectMeta

GROUP = "testing.pilothouse.dev"


class Colour(StrEnum):
    RED = "Red"
    BLUE = "Blue"

    @classmethod
    def _missing_(cls, value: object) -> "Colour":
        return cls.RED


class Port(msgspec.Struct, frozen=True, omit_defaults=True):
    name: Annotated[str, field("Its name.", maxLength=15, pattern="^[a-z]+$")]
    number: Annotated[int, field("Its number.", minimum=1, maximum=65535, format="int32")] = 1


class Pod(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    affinity: Annotated[core.Affinity | None, field("Where it may run.")] = None
    env: Annotated[tuple[core.EnvVar, ...], field("Variables.", map_keys=["name"], maxItems=3)] = ()
    resources: Annotated[core.ResourceRequirements, field("What it gets.")] = {}
    security_context: Annotated[core.PodSecurityContext, field("What it may.")] = {}
    tolerations: Annotated[tuple[core.Toleration, ...], field("Taints.", list_type="atomic")] = ()
    volumes: Annotated[tuple[core.Volume, ...], field("Volumes.", map_keys=["name"], maxItems=2)] = ()
    claim: Annotated[core.PersistentVolumeClaimSpec | None, field("Its disk.")] = None
    template: Annotated[core.PodTemplateSpec | None, field("All of it.")] = None


class SinkSpec(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    text: Annotated[str, field("A text.", minLength=1, maxLength=20)] = ""
    colour: Annotated[Colour, field("A word of a few.", default="Blue")] = Colour.BLUE
    word: Annotated[str, field("Another word of a few.", enum=["on", "off"])] = ""
    size: Annotated[int, field("How many.", default=3, minimum=0, maximum=9, format="int32")] = 3
    big: Annotated[int, field("A great number.", format="int64")] = 0
    ratio: Annotated[float, field("A fraction.", minimum=0, maximum=1)] = 0.0
    enabled: Annotated[bool, field("Yes or no.", default=True)] = True
    nothing: Annotated[str | None, field("A text or null.", nullable=True)] = ""
    since: Annotated[datetime | None, field("A moment.")] = None
    storage: Annotated[QuantityText, field("An amount.", default="1Gi")] = "1Gi"
    timeout: Annotated[DurationText, field("A span of time.", default="1h30m")] = "1h30m"
    unavailable: Annotated[IntOrString, field("A number or a percentage.")] = 0
    labels: Annotated[dict[str, str], field("Labels.", maxProperties=3)] = {}
    hosts: Annotated[tuple[str, ...], field("Told apart by value.", list_type="set", maxItems=3)] = ()
    ports: Annotated[tuple[Port, ...], field("Told apart by name.", map_keys=["name"], maxItems=3)] = ()
    numbers: Annotated[tuple[int, ...], field("Owned whole.", list_type="atomic", maxItems=3)] = ()
    anything: Annotated[dict[str, Any], field("Whatever people write.")] = {}
    pod: Annotated[Pod, field("Its pods.", default={})] = Pod()


class SinkStatus(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    size: Annotated[int, field("How many there are.", minimum=0, format="int32")] = 0
    selector: Annotated[str, field("Which pods.")] = ""
    observed_generation: Annotated[int, field("What it describes.", format="int64", minimum=0)] = 0
    conditions: Annotated[tuple[Condition, ...], field("Its state.", map_keys=["type"], maxItems=2)] = ()


class Sink(msgspec.Struct, frozen=True, omit_defaults=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: Annotated[
        SinkSpec,
        field(
            "What is asked for.",
            default={},
            rules=[
                # The server asks about the default {} before it fills in size.
                Rule(
                    "!has(self.size) || self.size < 9 || self.enabled",
                    "enable it, or ask for fewer than 9",
                    field_path=".size",
                )
            ],
        ),
    ] = SinkSpec()
    status: Annotated[SinkStatus, field("What there is.")] = SinkStatus()


class OldSink(msgspec.Struct, frozen=True, omit_defaults=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: Annotated[SinkSpec, field("What was asked for: no rule yet.", default={})] = SinkSpec()
    status: Annotated[SinkStatus, field("What there is.")] = SinkStatus()


KITCHEN_SINK: Kind[Sink] = Kind(
    Sink,
    group=GROUP,
    version="v2",
    title="Kitchen sink",
    description="A kind with every feature.",
    short_names=("sk",),
    categories=("all", "testing"),
    columns=(
        Column("Size", ".spec.size", type="integer"),
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status', priority=1),
        Column("Age", ".metadata.creationTimestamp", type="date"),
    ),
    rules=(Rule("self.metadata.name != 'forbidden'", "take another name", reason="FieldValueForbidden"),),
    scale=Scale(".spec.size", ".status.size", ".status.selector"),
    selectable=(".spec.colour", ".spec.size", ".spec.enabled"),
    versions=(Version("v1", OldSink, deprecation=f"{GROUP}/v1 Sink is deprecated; use {GROUP}/v2"),),
)
