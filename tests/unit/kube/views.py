"""A view for the client's tests."""

import msgspec

from pilothouse.kube import ObjectMeta, Resource


class Spec(msgspec.Struct, frozen=True):
    size: int = 0


class Widget(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    spec: Spec = Spec()


WIDGETS = Resource("testing.pilothouse.dev", "v1", "Widget", "widgets", Widget)


def body(name: str, version: int, size: object = 1) -> dict[str, object]:
    """Returns a widget as the server sends it, with fields that the view does not have."""
    return {
        "apiVersion": "testing.pilothouse.dev/v1",
        "kind": "Widget",
        "metadata": {
            "name": name,
            "namespace": "ns",
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "managedFields": [{"manager": "kubectl"}],
        },
        "spec": {"size": size, "colour": "red"},
    }


def status(code: int, reason: str, message: str, **details: object) -> dict[str, object]:
    """Returns a metav1.Status, as in refusals."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "details": details,
        "code": code,
    }
