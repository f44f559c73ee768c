"""The names of a new operator and its kind, and the rules for them."""

import ast
import builtins
import keyword
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pilothouse.api.kind import plural_of

# With longer names, the names of the ClusterServiceVersion (NAME.v0.1.0) and the pods would not be valid.
_NAME_LENGTH = 40
# The API server allows 63 characters for the list kind, such as WebSiteList.
_KIND_LENGTH = 59
_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"

# The packages and folders on the import path of a project, and the operator of this repository.
_PACKAGES = {
    *("api", "bundle", "cli", "config", "controller", "default", "examples", "flights", "informer", "kube"),
    *("kubernetes", "olm", "packaging", "pilothouse", "playbook", "process", "release", "telemetry"),
    *("test", "testing", "tests"),
}

# Kinds of Kubernetes' own groups (kubernetes.io/docs/reference/kubernetes-api, v1.34), and the most common
# ones of OLM and OpenShift. `kubectl get job` must not depend on which kind the API server lists first.
_KINDS = frozenset(
    re.findall(
        r"\w+",
        """
    APIGroup APIResource APIService APIVersions Binding CertificateSigningRequest ClusterRole
    ClusterRoleBinding ClusterServiceVersion ClusterTrustBundle ComponentStatus ConfigMap
    ControllerRevision CreateOptions CronJob CSIDriver CSINode CSIStorageCapacity
    CustomResourceDefinition DaemonSet DeleteOptions Deployment DeviceClass Endpoints EndpointSlice
    Event Eviction FlowSchema GetOptions HorizontalPodAutoscaler Ingress IngressClass InstallPlan
    IPAddress Job Lease LimitRange List ListOptions LocalSubjectAccessReview MutatingAdmissionPolicy
    MutatingWebhookConfiguration Namespace NetworkPolicy Node ObjectMeta OperatorGroup PatchOptions
    PersistentVolume PersistentVolumeClaim Pod PodDisruptionBudget PodTemplate PriorityClass
    PriorityLevelConfiguration Project ReplicaSet ReplicationController ResourceClaim
    ResourceClaimTemplate ResourceQuota ResourceSlice Role RoleBinding Route RuntimeClass Scale Secret
    SelfSubjectAccessReview SelfSubjectReview SelfSubjectRulesReview Service ServiceAccount ServiceCIDR
    StatefulSet Status StorageClass StorageVersion SubjectAccessReview Subscription Table TokenRequest
    TokenReview UpdateOptions ValidatingAdmissionPolicy ValidatingWebhookConfiguration VolumeAttachment
    VolumeAttributesClass WatchEvent
""",
    )
)

# Suffixes of the names that are derived from a kind.
_SUFFIXES = {"List": "a list", "Spec": "a spec", "Status": "a status", "Play": "a play"}


@dataclass(frozen=True)
class Names:
    """The names of a new operator and its kind.

    Attributes:
        name: The name of the operator: "web-sites".
        group: The API group: "example.com".
        kind: The kind: "WebSite".
    """

    name: str
    group: str
    kind: str

    @property
    def module(self) -> str:
        """The name of the Python package: "web_sites_operator"."""
        return f"{self.name.replace('-', '_')}_operator"

    @property
    def constant(self) -> str:
        """The kind as the name of a constant: "WEB_SITE"."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", self.kind).upper()

    def applied(self, text: str) -> str:
        """Returns a text of the template with its names replaced by these."""
        article = "n" if self.kind[0] in "AEIO" else ""
        text = re.sub(r"\b([Aa]) (?=`?Greeting)", rf"\1{article} ", text)
        renamed = {
            "greeter_operator": self.module,
            "greeter": self.name,
            "demo.pilothouse.dev": self.group,
            "GREETING": self.constant,
            "Greetings": plural_of(self.kind),
            "Greeting": self.kind,
            "greetings": plural_of(self.kind.lower()),
            "greeting": self.kind.lower(),
        }
        return re.sub("|".join(map(re.escape, renamed)), lambda found: renamed[found[0]], text)


def mistakes(names: Names, template: Path) -> Iterator[str]:
    """Yields an error message for each rule that a name breaks.

    Args:
        names: The names.
        template: The folder of the template, whose code will contain the names.
    """
    yield from _of_name(names.name)
    yield from _of_group(names)
    yield from _of_kind(names, template)


def _of_name(name: str) -> Iterator[str]:
    if not re.fullmatch(rf"(?=[a-z]){_LABEL}", name) or len(name) > _NAME_LENGTH:
        yield (
            f"the name {name!r} must consist of lower-case letters, digits and '-', begin with a letter, end "
            f"with a letter or digit, and have at most {_NAME_LENGTH} characters, such as web-sites"
        )
        return
    word = name.replace("-", "_")
    if keyword.iskeyword(word) or keyword.issoftkeyword(word):
        yield f"the name {name!r} is a Python keyword. Choose another name, such as my-{name}"
    elif word in sys.stdlib_module_names:
        yield f"the name {name!r} is a module of Python. Choose another name, such as my-{name}"
    elif word in _PACKAGES:
        yield f"the name {name!r} is reserved. Choose another name, such as my-{name}"
    elif name.startswith(("kube-", "openshift-")):
        yield (
            f"the name {name!r} begins with a prefix that is reserved for the cluster's own namespaces. "
            f"Choose another name, such as my-{name}"
        )


def _of_group(names: Names) -> Iterator[str]:
    group = names.group
    domain = re.fullmatch(rf"{_LABEL}(\.{_LABEL})+", group) and re.search(r"(^|\.)[a-z]", group)
    # The name of the CRD is PLURAL.GROUP, with at most 253 characters.
    if not domain or len(f"{plural_of(names.kind.lower())}.{group}") > 253:
        yield f"the group {group!r} must be a domain name of your own, in lower case, such as example.com"
    if re.search(r"(^|\.)(k8s|kubernetes)\.io$", group):
        yield f"the group {group!r} belongs to Kubernetes. Use a domain name of your own"


def _of_kind(names: Names, template: Path) -> Iterator[str]:
    kind = names.kind
    if not re.fullmatch(r"[A-Z][A-Za-z0-9]*", kind) or len(kind) > _KIND_LENGTH:
        yield (
            f"the kind {kind!r} must be in CamelCase, consist of letters and digits, and have at most "
            f"{_KIND_LENGTH} characters, such as WebSite"
        )
        return
    if kind in _KINDS:
        yield f"the kind {kind!r} is a kind of Kubernetes or OLM. Choose another kind, such as My{kind}"
    elif keyword.iskeyword(kind) or hasattr(builtins, kind):
        yield f"the kind {kind!r} is a name in Python. Choose another kind, such as My{kind}"
    elif {kind, names.constant} & _taken(template):
        yield f"the kind {kind!r} is already a name in the operator's code. Choose another kind"
    for suffix, what in _SUFFIXES.items():
        if kind.endswith(suffix) and kind not in _KINDS:
            yield f"the kind {kind!r} must not end in {suffix}, because that is the name of {what}"


def _taken(template: Path) -> set[str]:
    """Returns the names that the template's modules import or define."""
    found: set[str] = set()
    for path in template.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            match node:
                case ast.ImportFrom(names=aliases) | ast.Import(names=aliases):
                    found |= {alias.asname or alias.name for alias in aliases}
                case ast.ClassDef(name=name):
                    found.add(name)
                case ast.Assign(targets=[ast.Name(id=name)]):
                    found.add(name)
    return {name for name in found if "greeting" not in name.lower()}
