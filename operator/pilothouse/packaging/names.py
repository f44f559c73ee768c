"""What a new operator and its kind are called, and which names are refused."""

import ast
import builtins
import keyword
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pilothouse.api.kind import plural_of

# The longest name whose ClusterServiceVersion, NAME.v0.1.0, and pods' names are valid.
_NAME_LENGTH = 40
# The longest kind whose list, such as WebSiteList, is named as the API server wants it: 63 at most.
_KIND_LENGTH = 59
_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"

# The packages and folders that are on the import path of a project, and this repository's own operator.
_PACKAGES = {
    *("api", "bundle", "cli", "config", "controller", "default", "examples", "flights", "informer", "kube"),
    *("kubernetes", "olm", "packaging", "pilothouse", "playbook", "process", "release", "telemetry"),
    *("test", "testing", "tests"),
}

# Kinds of Kubernetes' own groups (kubernetes.io/docs/reference/kubernetes-api, v1.34), and the most common
# ones of OLM and OpenShift. `kubectl get job` must not depend on which of two kinds the server lists first.
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

# Names that end so belong to something that comes with a kind.
_SUFFIXES = {"List": "a list", "Spec": "a spec", "Status": "a status", "Play": "a play"}


@dataclass(frozen=True)
class Names:
    """What a new operator and its kind are called.

    Attributes:
        name: The operator: "web-sites".
        group: The API group: "example.com".
        kind: The kind: "WebSite".
    """

    name: str
    group: str
    kind: str

    @property
    def module(self) -> str:
        """The Python package: "web_sites_operator"."""
        return f"{self.name.replace('-', '_')}_operator"

    @property
    def constant(self) -> str:
        """The kind as the name of a constant: "WEB_SITE"."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", self.kind).upper()

    def applied(self, text: str) -> str:
        """Returns a text of the template with these names in place of its own."""
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
    """Yields what is wrong with the names, a sentence each.

    Args:
        names: The names.
        template: The folder with the code that they are put into.
    """
    yield from _of_name(names.name)
    yield from _of_group(names)
    yield from _of_kind(names, template)


def _of_name(name: str) -> Iterator[str]:
    if not re.fullmatch(rf"(?=[a-z]){_LABEL}", name) or len(name) > _NAME_LENGTH:
        yield (
            f"the name {name!r} must consist of lower case letters, digits and '-', begin with a letter, end "
            f"with a letter or digit, and have at most {_NAME_LENGTH} characters, such as web-sites"
        )
        return
    word = name.replace("-", "_")
    if keyword.iskeyword(word) or keyword.issoftkeyword(word):
        yield f"the name {name!r} is a keyword of Python: choose another one, such as my-{name}"
    elif word in sys.stdlib_module_names:
        yield f"the name {name!r} is one of Python's own modules: choose another one, such as my-{name}"
    elif word in _PACKAGES:
        yield f"the name {name!r} is reserved: choose another one, such as my-{name}"
    elif name.startswith(("kube-", "openshift-")):
        yield f"the name {name!r} would give the operator a namespace that is reserved for the cluster itself"


def _of_group(names: Names) -> Iterator[str]:
    group = names.group
    domain = re.fullmatch(rf"{_LABEL}(\.{_LABEL})+", group) and re.search(r"(^|\.)[a-z]", group)
    # With the plural and a dot before it, it names the CRD: 253 at most.
    if not domain or len(f"{plural_of(names.kind.lower())}.{group}") > 253:
        yield f"the group {group!r} must be a domain name of yours, in lower case, such as example.com"
    if re.search(r"(^|\.)(k8s|kubernetes)\.io$", group):
        yield f"the group {group!r} belongs to Kubernetes: choose a domain name of yours"


def _of_kind(names: Names, template: Path) -> Iterator[str]:
    kind = names.kind
    if not re.fullmatch(r"[A-Z][A-Za-z0-9]*", kind) or len(kind) > _KIND_LENGTH:
        yield (
            f"the kind {kind!r} must be in CamelCase, consist of letters and digits, and have at most "
            f"{_KIND_LENGTH} characters, such as WebSite"
        )
        return
    if kind in _KINDS:
        yield f"the kind {kind!r} is one of Kubernetes' own: choose another one, such as My{kind}"
    elif keyword.iskeyword(kind) or hasattr(builtins, kind):
        yield f"the kind {kind!r} is a name that Python has already: choose another one, such as My{kind}"
    elif {kind, names.constant} & _taken(template):
        yield f"the kind {kind!r} is a name that the operator's code has already: choose another one"
    for suffix, what in _SUFFIXES.items():
        if kind.endswith(suffix) and kind not in _KINDS:
            yield f"the kind {kind!r} must not end in {suffix}, the name of {what}"


def _taken(template: Path) -> set[str]:
    """The names that the template's code imports or defines at the top."""
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
