"""The declaration of a kind: its fields with descriptions and bounds, and what kubectl and consoles show."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar

import msgspec

from pilothouse.api.declarations import require_fields, require_json_path, require_status, require_view
from pilothouse.api.keywords import require_keyword, require_list, require_types
from pilothouse.kube import KubeObject, Resource
from pilothouse.kube.resource import require_no_duplicates

T = TypeVar("T", bound=KubeObject)

# k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1: FieldValueErrorReason, and the types of columns.
_REASONS = ("FieldValueInvalid", "FieldValueRequired", "FieldValueForbidden", "FieldValueDuplicate")
_COLUMN_TYPES = ("integer", "number", "string", "boolean", "date")
# Short names and categories are DNS labels.
_LABEL = re.compile("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Rule:
    """A CEL rule by which the API server validates a value (x-kubernetes-validations).

    Objects that were stored before the rule existed stay valid: the API server validates a value again only
    when it changes (CRDValidationRatcheting, enabled by default since Kubernetes 1.30, and for writes of the
    status since 1.33).

    Attributes:
        rule: The CEL expression. The value is valid if it returns true. `self` is the value.
        message: What is wrong and what to write instead, for the user whose request is refused.
        field_path: The field that the error names, relative to the value: ".from".
        reason: FieldValueInvalid, FieldValueRequired, FieldValueForbidden or FieldValueDuplicate.
        optional_old_self: Whether a rule that uses `oldSelf` is also evaluated at creation. Otherwise it is
            evaluated only when the value changes.

    Raises:
        TypeError: An attribute is not valid. The syntax of the rule is checked when the CRD is generated.
    """

    rule: str
    message: str
    field_path: str = ""
    reason: str = "FieldValueInvalid"
    optional_old_self: bool = False

    def __post_init__(self) -> None:
        where = f"Rule {self.rule!r}"
        require_types(where, self)
        if not self.rule.strip():
            raise TypeError("Rule: the CEL expression is empty. Write a condition, such as self.size <= 7")
        if not self.message.strip() or "\n" in self.message:
            raise TypeError(f"{where}: message must be one line of text, not {self.message!r}")
        if self.reason not in _REASONS:
            raise TypeError(f"{where}: reason must be {' or '.join(_REASONS)}, not {self.reason!r}")
        if self.field_path and not self.field_path.startswith((".", "[")):
            raise TypeError(
                f"{where}: field_path must begin with a dot, such as .size, not {self.field_path!r}"
            )
        if self.optional_old_self and "oldSelf" not in self.rule:
            raise TypeError(f"{where}: optional_old_self is for a rule that uses oldSelf")

    def to_schema(self) -> dict[str, object]:
        """Returns the rule as an entry of x-kubernetes-validations."""
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
    """Describes a field, as the second argument of its Annotated type.

    The API server enforces bounds. Decoding does not check them: otherwise one object that was stored with
    older bounds could not be read any more.

    Args:
        description: What the field means, with its unit. Markdown.
        title: The field's name in a console's form.
        descriptors: How a console displays the field, for example "com.tectonic.ui:podCount" (without
            urn:alm:descriptor:).
        rules: CEL rules for the value.
        map_keys: The fields that identify the items of a list (x-kubernetes-list-type: map). Several clients
            can then own different items of the list.
        list_type: With "set", items are identified by their values. With "atomic", one client owns the whole
            list.
        keywords: Keywords of JSON Schema: minimum=1, pattern="^a", format="int64". With default=, the API
            server stores the default where the field is absent. The struct must have the same default.

    Raises:
        TypeError: A structural schema does not have this keyword, or its value has the wrong type.
    """
    require_list("field", descriptors=descriptors, rules=rules, map_keys=map_keys)
    require_no_duplicates("field", repr, descriptors=descriptors, rules=rules, map_keys=map_keys)
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
        name: The column's heading.
        path: The JSONPath of the value in the object: ".spec.from".
        type: integer, number, string, boolean or date.
        description: What the column shows.
        priority: A column with priority 0 is always shown, others only with `-o wide`.

    Raises:
        TypeError: An attribute is not valid. That the field exists is checked when the CRD is generated.
    """

    name: str
    path: str
    type: str = "string"
    description: str = ""
    priority: int = 0

    def __post_init__(self) -> None:
        where = f"Column {self.name!r}"
        require_types(where, self)
        if not self.name:
            raise TypeError("Column: name is empty. Write the heading of the column")
        require_json_path(where, "path", self.path, "spec", "status", "metadata")
        if self.type not in _COLUMN_TYPES:
            raise TypeError(f"{where}: type must be {' or '.join(_COLUMN_TYPES)}, not {self.type!r}")
        if self.priority < 0:
            raise TypeError(f"{where}: priority must not be negative, but is {self.priority}")


@dataclass(frozen=True)
class ManagedResource:
    """A kind of object that the operator creates for an object of this kind, for a console's list."""

    kind: str
    version: str
    name: str = ""

    def __post_init__(self) -> None:
        require_types(f"ManagedResource {self.kind!r}", self)


@dataclass(frozen=True)
class Scale:
    """The subresource scale, through which `kubectl scale` and autoscalers read and set an object's size.

    Both numbers need format="int32".

    Attributes:
        spec_replicas: The path of the desired size: ".spec.size".
        status_replicas: The path of the current size: ".status.size".
        label_selector: The path of the pods' label selector, a string. A HorizontalPodAutoscaler needs it.
    """

    spec_replicas: str
    status_replicas: str
    label_selector: str = ""

    def __post_init__(self) -> None:
        require_types("Scale", self)
        for name, parts in (
            ("spec_replicas", ("spec",)),
            ("status_replicas", ("status",)),
            ("label_selector", ("spec", "status")),
        ):
            path = getattr(self, name)
            if path or name != "label_selector":
                require_json_path("Scale", name, path, *parts)
            if path and path.split(".")[1] not in parts:
                raise TypeError(f"Scale: {name} must be a path in {' or '.join(parts)}, not {path!r}")


@dataclass(frozen=True)
class Version:
    """Another version of a kind. The operator itself reads and writes the stored version.

    There is no conversion webhook: the API server changes only the apiVersion, and a write through a version
    removes the fields that this version lacks. So all versions must have the same fields with the same types
    (`crd` refuses others). Descriptions, bounds, defaults and rules may differ.

    Attributes:
        name: The version's name, such as "v1beta1".
        view: The struct that the schema is generated from.
        served: Whether the API server serves this version. Keep a version in the list while objects may still
            be stored in it.
        deprecation: The warning for clients that use this version. Empty: the version is not deprecated.
    """

    name: str
    view: type[Any]
    served: bool = True
    deprecation: str = ""

    def __post_init__(self) -> None:
        require_types(f"Version {self.name}", self)
        require_view(f"Version {self.name}", self.view)
        require_fields(self.view)


# The types of the items in the lists of a Kind.
_ITEMS: Mapping[str, type] = {
    "short_names": str,
    "categories": str,
    "columns": Column,
    "rules": Rule,
    "selectable": str,
    "versions": Version,
    "manages": ManagedResource,
}

READY_COLUMNS = (
    Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
    Column("Reason", '.status.conditions[?(@.type=="Ready")].reason'),
    Column("Message", '.status.conditions[?(@.type=="Ready")].message', priority=1),
    Column("Age", ".metadata.creationTimestamp", type="date"),
)
"""The columns of a kind that declares none."""


@dataclass(frozen=True)
class Kind(Generic[T]):
    """A kind of your own: its names and versions, its fields, and how kubectl and consoles show it.

    For a kind that is defined elsewhere, declare a `Resource`.

    Attributes:
        view: The frozen msgspec Struct that objects are decoded into. The CRD's schema is generated from it.
        group: The API group, a domain name of yours: "example.com".
        version: The stored version, such as "v1".
        kind: The kind's name. By default the name of the view, such as "WebSite".
        plural: The name in paths and commands. By default the kind's plural in lower case, "websites".
        namespaced: Whether objects of the kind are namespaced.
        title: The name for people, "Web site". By default the kind's name.
        description: What an object of the kind is for. Markdown.
        short_names: Short names for kubectl, such as "ws".
        categories: The categories that include the kind. `kubectl get all` lists the kinds in "all".
        columns: The columns of `kubectl get`. By default Ready, its reason and the age.
        rules: CEL rules for the whole object.
        scale: The subresource scale. None: the kind does not have it.
        selectable: The fields that field selectors may use, in the stored version: ".spec.colour". Their type
            is string, integer or boolean. Kubernetes supports them by default since 1.31
            (CustomResourceFieldSelectors), so set the operator's minKubeVersion accordingly.
        versions: Other versions of the kind.
        manages: The kinds of objects that the operator creates for an object.
        reasons: The meaning of each reason of the condition Ready.

    Raises:
        TypeError: An attribute has the wrong type, or the engine could not decode an object whose status has
            only observedGeneration and conditions. The schema is checked when the CRD is generated.
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
        require_view("Kind", self.view)
        kind = self.kind or self.view.__name__
        where = f"Kind {kind}"
        require_types(where, self)
        for name, item in _ITEMS.items():
            values = getattr(self, name)
            require_list(where, **{name: values})
            if wrong := [each for each in values if not isinstance(each, item)]:
                raise TypeError(
                    f"{where}: {name} has {wrong[0]!r}, which is not a {item.__name__}"
                    f"{'' if item is str else f'. Write {item.__name__}(...)'}"
                )
            require_no_duplicates(where, repr, **{name: values})
        for each in (*self.short_names, *self.categories):
            if not _LABEL.fullmatch(each):
                raise TypeError(f"{where}: {each!r} must have only lower-case letters, digits and hyphens")
        for path in self.selectable:
            require_json_path(where, "selectable", path, "spec", "status")
        if not isinstance(self.scale, Scale | None):
            raise TypeError(f"{where}: scale is {self.scale!r}, which is not a Scale. Write Scale(...)")
        if not isinstance(self.reasons, Mapping) or not all(
            isinstance(text, str) for pair in self.reasons.items() for text in pair
        ):
            raise TypeError(f"{where}: reasons must be a dict of texts by reason, not {self.reasons!r}")
        require_fields(self.view)
        require_status(self.view)
        defaults = {"kind": kind, "plural": plural_of(kind.lower()), "title": kind}
        for name, value in defaults.items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)

    @cached_property
    def resource(self) -> Resource[T]:
        """The kind's resource, in the stored version."""
        return Resource(
            self.group, self.version, self.kind, self.plural, self.view, self.namespaced, declared=True
        )


def plural_of(word: str) -> str:
    """Returns the plural of a regular English noun: websites, boxes, policies."""
    if re.search("(s|x|z|ch|sh)$", word):
        return f"{word}es"
    return f"{word[:-1]}ies" if re.search("[^aeiou]y$", word) else f"{word}s"
