"""How a kind is declared: typed structs whose fields carry their words, and what the API shows of them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar

import msgspec

from pilothouse.api.keywords import require_keyword
from pilothouse.kube import KubeObject, Resource

T = TypeVar("T", bound=KubeObject)


@dataclass(frozen=True)
class Rule:
    """A CEL rule that the API server holds a value to (x-kubernetes-validations).

    A rule does not touch objects stored before it: the server checks a value again only when it changes
    (CRDValidationRatcheting; by default since Kubernetes 1.30, and for writes of the status since 1.33).

    Attributes:
        rule: The CEL expression; true accepts. `self` is the value.
        message: What is wrong and what to write instead, for the person whose request is refused.
        field_path: The field to blame, relative to the value: ".from".
        reason: FieldValueInvalid, FieldValueRequired, FieldValueForbidden or FieldValueDuplicate.
        optional_old_self: The rule asks about `oldSelf`, and wants to be asked at creation too.
    """

    rule: str
    message: str
    field_path: str = ""
    reason: str = "FieldValueInvalid"
    optional_old_self: bool = False

    def to_schema(self) -> dict[str, object]:
        """The rule as an entry of x-kubernetes-validations."""
        entry: dict[str, object] = {"rule": self.rule, "message": self.message, "reason": self.reason}
        if self.field_path:
            entry["fieldPath"] = self.field_path
        if self.optional_old_self:
            entry["optionalOldSelf"] = True
        return entry


def field(
    description: str,
    *,
    title: str = "",
    descriptors: Sequence[str] = (),
    rules: Sequence[Rule] = (),
    map_keys: Sequence[str] = (),
    list_type: Literal["", "set", "atomic"] = "",
    **keywords: object,
) -> msgspec.Meta:
    """What is said of a field, as the second part of its Annotated type.

    Bounds are the API server's to hold: decoding does not check them, because one object stored under older
    rules would otherwise stop the operator from reading all the others.

    Args:
        description: What it means, with its unit; markdown.
        title: Its name in a console's form.
        descriptors: What a console shows it with: "com.tectonic.ui:podCount" (without urn:alm:descriptor:).
        rules: CEL rules on the value.
        map_keys: The fields that tell the items of a list apart (x-kubernetes-list-type: map): two who apply
            own items of it side by side.
        list_type: "set": the items are told apart by their values; "atomic": who applies owns it whole.
        keywords: JSON Schema keywords by their own names: minimum=1, pattern="^a", format="int64". With
            default=, which the server puts where a field is absent, the struct has the same default.

    Raises:
        TypeError: A structural schema has no such keyword, or its value has another type.
    """
    for word, value in keywords.items():
        require_keyword(word, value)
    schema: dict[str, object] = dict(keywords)
    if rules:
        schema["x-kubernetes-validations"] = [rule.to_schema() for rule in rules]
    if map_keys:
        schema["x-kubernetes-list-type"] = "map"
        schema["x-kubernetes-list-map-keys"] = list(map_keys)
    if list_type:
        schema["x-kubernetes-list-type"] = list_type
    return msgspec.Meta(
        title=title or None,
        description=description,
        extra_json_schema=schema or None,
        extra={"descriptors": tuple(descriptors)} if descriptors else None,
    )


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`.

    Attributes:
        name: Its heading.
        path: Where the value is, as a JSONPath relative to the object: ".spec.from".
        type: integer, number, string, boolean or date.
        description: What it shows.
        priority: 0 is always shown; greater ones with `-o wide` alone.
    """

    name: str
    path: str
    type: str = "string"
    description: str = ""
    priority: int = 0


@dataclass(frozen=True)
class ManagedResource:
    """A resource that an object of the kind leads to, for a console's list."""

    kind: str
    version: str
    name: str = ""


@dataclass(frozen=True)
class Scale:
    """How `kubectl scale` and autoscalers read and set an object's size: its subresource scale.

    Both numbers are of format="int32".

    Attributes:
        spec_replicas: Where the wanted size is: ".spec.size".
        status_replicas: Where the present size is: ".status.size".
        label_selector: Where the selector of its pods is, as a string, for a HorizontalPodAutoscaler.
    """

    spec_replicas: str
    status_replicas: str
    label_selector: str = ""


@dataclass(frozen=True)
class Version:
    """A further version that a kind is served in; the operator reads and writes the one that is stored.

    There is no conversion webhook: the API server changes the apiVersion and nothing else, and a write
    through a version, a patch too, takes away the fields that this version lacks. So all versions have the
    same fields of the same types (`crd` refuses others); descriptions, bounds, defaults and rules may differ.

    Attributes:
        name: Such as "v1beta1".
        view: The struct that its schema comes from.
        served: Whether requests for it are answered. One that may still be stored must stay listed.
        deprecation: What who uses it is warned with; empty: it is not deprecated.
    """

    name: str
    view: type[Any]
    served: bool = True
    deprecation: str = ""


READY_COLUMNS = (
    Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
    Column("Reason", '.status.conditions[?(@.type=="Ready")].reason'),
    Column("Message", '.status.conditions[?(@.type=="Ready")].message', priority=1),
    Column("Age", ".metadata.creationTimestamp", type="date"),
)
"""What `kubectl get` shows of a kind that declares no columns of its own."""


@dataclass(frozen=True)
class Kind(Generic[T]):
    """A kind of your own: where it is served, what it looks like, and what people see of it.

    Kinds that others define are a `Resource`.

    Attributes:
        view: The frozen msgspec Struct that the operator decodes; the CRD's schema comes from it.
        group: The API group, a domain name of yours: "example.com".
        version: The stored version, such as "v1".
        kind: The kind's name; by default the name of the view, such as "WebSite".
        plural: Its name in paths and commands; by default the kind's plural in lower case, "websites".
        namespaced: Whether its objects live in namespaces.
        title: Its name for people, "Web site"; by default the kind's name.
        description: What an object of it asks for; markdown.
        short_names: Further names for kubectl, such as "ws".
        categories: The groups it is listed with: "all".
        columns: What `kubectl get` shows; by default Ready, its reason and the age.
        rules: CEL rules on the whole object.
        scale: Its subresource scale; None: it has no size.
        selectable: The fields that lists and watches of the stored version may be narrowed by, of type
            string, integer or boolean: ".spec.colour". Kubernetes serves it by default since 1.31
            (CustomResourceFieldSelectors): the operator's minKubeVersion must say so.
        versions: The further versions.
        manages: What an object leads to in the cluster.
        reasons: What each reason of the condition Ready means.
    """

    view: type[T]
    group: str
    version: str
    kind: str = ""
    plural: str = ""
    namespaced: bool = True
    title: str = ""
    description: str = ""
    short_names: Sequence[str] = ()
    categories: Sequence[str] = ()
    columns: Sequence[Column] = READY_COLUMNS
    rules: Sequence[Rule] = ()
    scale: Scale | None = None
    selectable: Sequence[str] = ()
    versions: Sequence[Version] = ()
    manages: Sequence[ManagedResource] = ()
    reasons: Mapping[str, str] = dataclass_field(default_factory=dict)

    def __post_init__(self) -> None:
        kind = self.kind or self.view.__name__
        defaults = {"kind": kind, "plural": plural_of(kind.lower()), "title": kind}
        for name, value in defaults.items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)

    @cached_property
    def resource(self) -> Resource[T]:
        """Where the kind is served, in the stored version, and the view that its objects are read into."""
        return Resource(self.group, self.version, self.kind, self.plural, self.view, self.namespaced)


def plural_of(word: str) -> str:
    """The English plural of a regular noun: websites, boxes, policies. Pass `Kind.plural` for others."""
    if re.search("(s|x|z|ch|sh)$", word):
        return f"{word}es"
    return f"{word[:-1]}ies" if re.search("[^aeiou]y$", word) else f"{word}s"
