"""The gRPC stubs of etcd.

`inv etcd-protos` writes the proto files from etcd's pinned sources. They are committed. `inv generate` writes
the Python code from them with protoc.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from invoke.context import Context
from invoke.tasks import task

from devcluster import toolchain
from devcluster.folders import CHECKOUT
from devcluster.shell import run
from devcluster.tasks import speaking_plainly
from release import documents

#: The source root, and the package of the stubs in it.
_ROOT, _PACKAGE = CHECKOUT / "operator", "etcd_operator/rpc"
FOLDER = _ROOT / _PACKAGE
_MODULE = "go.etcd.io/etcd/api/v3"
#: Our files, and where etcd has them.
_SOURCES = {"rpc": "etcdserverpb/rpc.proto", "kv": "mvccpb/kv.proto", "auth": "authpb/auth.proto"}
#: Seconds. protoc takes less than one.
_TIMEOUT = 60.0
_INIT = '"""Stubs of etcd\'s gRPC API, written by `./inv generate` from the proto files."""\n'


@task
@speaking_plainly
def etcd_protos(_: Context) -> None:
    """Writes etcd's proto files for the stubs. Run it after pinning another etcd, then run generate."""
    for path in documents.write(protos()):
        print(f"wrote {path.relative_to(CHECKOUT)}")


def protos() -> dict[Path, str]:
    """Returns the proto files and their expected text, from etcd's sources.

    Go checks the sources against the hash in go.sum.
    """
    tool = toolchain.TOOLS["etcd"]
    folder = toolchain.module_folder(tool, _MODULE)
    comment = (
        f"// Written by `./inv etcd-protos` from {_MODULE} {tool.version}, without options.\n"
        "// Copyright The etcd Authors. Licensed under the Apache License, Version 2.0.\n"
    )
    return {
        FOLDER / f"{name}.proto": comment + stripped((folder / source).read_text())
        for name, source in _SOURCES.items()
    }


def stripped(text: str) -> str:
    """Returns a proto file without what requires proto files of other projects.

    These are the options for Go, for the JSON gateway, and for etcd's own checks of versions. The messages on
    the wire do not depend on them.
    """
    text = _without_options(text)
    text = re.sub(r"\s*\[\s*\((?:gogoproto|versionpb)[^\]]*\]", "", text)
    text = re.sub(
        r'import "(?:gogoproto|google/api|protoc-gen-openapiv2|etcd/api/versionpb)[^"]*";\n', "", text
    )
    text = re.sub(r'import "etcd/api/\w+/(\w+\.proto)";', rf'import "{_PACKAGE}/\1";', text)
    text = re.sub(r"option go_package[^\n]*\n", "", text)
    lines = (line.rstrip() for line in text.splitlines())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"


def _without_options(text: str) -> str:
    """Removes the custom options, `option (NAME) = VALUE;`, whose values may have braces and strings."""
    kept, position = "", 0
    while match := re.compile(r"[ \t]*option\s+\(").search(text, position):
        kept += text[position : match.start()]
        position = _end_of_option(text, match.end())
    return kept + text[position:]


def _end_of_option(text: str, position: int) -> int:
    depth = 0
    for token in re.compile(r'"[^"]*"|[{};]').finditer(text, position):
        depth += {"{": 1, "}": -1}.get(token[0], 0)
        if token[0] == ";" and not depth:
            return token.end()
    raise ValueError("an option of a proto file has no end")


def files() -> dict[Path, str]:
    """Returns the generated Python files and their expected text, from the committed proto files."""
    sources = [f"{_PACKAGE}/{name}.proto" for name in _SOURCES]
    with tempfile.TemporaryDirectory() as folder:
        plugin, output = Path(folder, "plugin"), Path(folder, "output")
        # The script that pip installs names the interpreter of the folder in which .venv was created.
        plugin.write_text(f"#!{sys.executable}\nfrom grpclib.plugin.main import main\nmain()\n")
        plugin.chmod(0o700)
        output.mkdir()
        kinds = [f"--{kind}_out={output}" for kind in ("python", "pyi", "grpclib_python")]
        named = f"--plugin=protoc-gen-grpclib_python={plugin}"
        run(
            [sys.executable, "-m", "grpc_tools.protoc", f"-I{_ROOT}", *kinds, named, *sources],
            timeout=_TIMEOUT,
        )
        generated = documents.tree(output / _PACKAGE)
    # Files with services only have a body for rpc.proto.
    used = {name: text for name, text in generated.items() if "_grpc" not in name.stem or "class " in text}
    return {FOLDER / "__init__.py": _INIT, **{FOLDER / name: text for name, text in used.items()}}
