"""Kubeconfig files for tests."""

import json
from pathlib import Path
from typing import Any

SERVER = "https://c.example:6443/"


def kubeconfig(folder: Path, user: dict[str, Any], **cluster: Any) -> str:
    """Writes a kubeconfig with one cluster, one user and two contexts, and returns its path."""
    path = folder / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": SERVER, **cluster}}],
                "users": [{"name": "u", "user": user}],
                "contexts": [
                    {"name": "plain", "context": {"cluster": "c", "user": "u"}},
                    {"name": "named", "context": {"cluster": "c", "user": "u", "namespace": "mine"}},
                ],
                "current-context": "plain",
            }
        )
    )
    return str(path)
