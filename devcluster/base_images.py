"""Images packed from tools and Debian packages, cached by content: the cluster's own, and those of etcd."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devcluster import folders, python_base, toolchain
from devcluster.oci import Blobs, Descriptor, Entry, Image, Registry
from devcluster.shell import run

#: Has to change whenever the way of packing changes.
_RECIPE = "1"
_NONROOT = "1001"
_BUSYBOX = Path("/bin/busybox")


@dataclass(frozen=True)
class BaseImage:
    """One image: its name in the registry, and its content."""

    #: The path after the registry's host, such as operator-framework/opm for quay.io/operator-framework/opm.
    repository: str
    tags: tuple[str, ...]
    #: Packs the layers into the blob folder.
    layers: Callable[[Blobs], Sequence[Descriptor]]
    #: Names of the tools whose binaries it contains.
    tools: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    #: Anything else that the content depends on.
    salt: str = ""


def ensure(names: Iterable[str], registry: Registry) -> None:
    """Packs the named images that are not in the cache, and pushes what the registry does not have."""
    for name in names:
        image = get(name)
        registry.push(_blobs(), image, IMAGES[name].repository, IMAGES[name].tags)


def get(name: str) -> Image:
    """Returns an image. Its layers come from the cache or are packed now."""
    definition = IMAGES[name]
    for tool in definition.tools:
        toolchain.build(toolchain.TOOLS[tool])
    record = folders.cache() / "images" / f"{name}-{_key(definition)}.json"
    if not record.exists():
        with folders.locked(folders.cache() / "images" / f"{name}.lock", f"packing the image {name}"):
            if not record.exists():
                layers = definition.layers(_blobs())
                draft = record.with_suffix(".draft")
                draft.write_text(json.dumps([layer.document() for layer in layers]))
                draft.rename(record)
    kept = [Descriptor.parse(document) for document in json.loads(record.read_text())]
    return _blobs().put_image(kept, definition.config)


def unpack(name: str, folder: Path) -> None:
    """Unpacks the file system of an image into an empty folder. Needs root to set the owners of the files."""
    for layer in get(name).layers:
        run(["tar", "--numeric-owner", "-C", folder, "-xpf", _blobs().path(layer.digest)], timeout=300)


def fingerprint(names: Iterable[str]) -> str:
    """Returns a text that changes whenever one of the named images would change. Builds nothing."""
    return repr([(_key(IMAGES[name]), IMAGES[name].tags, IMAGES[name].config) for name in names])


def _key(definition: BaseImage) -> str:
    """Returns a hash of everything that the layers depend on."""
    parts = [_RECIPE, definition.salt, *(toolchain.TOOLS[tool].key for tool in definition.tools)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _blobs() -> Blobs:
    return Blobs(folders.cache() / "images")


def _binaries(*names: str, folder: str, tools: bool = False) -> Callable[[Blobs], list[Descriptor]]:
    """Returns a function that packs a layer of binaries in `folder`, on top of busybox if `tools` is set."""

    def pack(blobs: Blobs) -> list[Descriptor]:
        layer = blobs.put_layer([Entry(f"{folder}/{name}", source=toolchain.binary(name)) for name in names])
        return [*_busybox(blobs), layer] if tools else [layer]

    return pack


def _busybox(blobs: Blobs) -> list[Descriptor]:
    applets = run([_BUSYBOX, "--list"], timeout=10).split()
    entries = [Entry("bin"), Entry("bin/busybox", source=_BUSYBOX)]
    # A link with the name of the program itself would replace it.
    entries += [Entry(f"bin/{applet}", link="busybox") for applet in applets if applet != "busybox"]
    entries += [Entry("etc"), Entry("etc/passwd", text="root:x:0:0:root:/:/bin/sh\n", mode=0o644)]
    entries += [Entry("tmp", mode=0o1777), Entry("util")]
    return [blobs.put_layer(entries)]


def _pause(blobs: Blobs) -> list[Descriptor]:
    source = toolchain.module_folder(toolchain.TOOLS["kubernetes"]) / "build/pause/linux/pause.c"
    built = folders.cache() / "images" / ".pause.draft"
    run(["gcc", "-Os", "-static", "-DVERSION=3.10", "-o", built, source], timeout=60)
    layer = blobs.put_layer([Entry("pause", source=built)])
    built.unlink()
    return [layer]


def _python(blobs: Blobs) -> list[Descriptor]:
    draft = folders.cache() / "images" / ".python.draft"
    shutil.rmtree(draft, ignore_errors=True)
    layer = blobs.adopt_tar(python_base.build(draft))
    shutil.rmtree(draft)
    return [layer]


def _version(tool: str) -> str:
    return toolchain.TOOLS[tool].version


def _etcd_image(tool: str) -> BaseImage:
    """Returns an image of etcd like the official ones: three static programs, no shell and no entrypoint.

    The model is Dockerfile-release.amd64 of etcd-io/etcd. The certificate authorities and time zones of its
    base image are left out, because etcd does not need them.
    """
    return BaseImage(
        "coreos/etcd",
        (_version(tool),),
        _etcd_layer(tool),
        tools=(tool,),
        config={
            **_PATH,
            "Cmd": ["/usr/local/bin/etcd"],
            "WorkingDir": "/var/lib/etcd/",
            "ExposedPorts": {"2379/tcp": {}, "2380/tcp": {}},
        },
        salt=repr(_ETCD_FILES),
    )


def _etcd_layer(tool: str) -> Callable[[Blobs], list[Descriptor]]:
    def pack(blobs: Blobs) -> list[Descriptor]:
        # A binary's name may have the version as a suffix. In the image it has none.
        programs = [
            Entry(f"usr/local/bin/{binary.partition('-')[0]}", source=toolchain.binary(binary))
            for binary in toolchain.TOOLS[tool].binaries
        ]
        return [blobs.put_layer([*programs, *_ETCD_FILES])]

    return pack


_PATH = {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}
_SHELL = {**_PATH, "Cmd": ["sh"]}
_SHELL_NONROOT = {**_SHELL, "User": _NONROOT}

#: The users, the order of name resolution, and the folders of the official images.
_ETCD_FILES = (
    Entry(
        "etc/passwd",
        text="root:x:0:0::/root:/sbin/nologin\nnonroot:x:65532:65532::/:/sbin/nologin\n",
        mode=0o644,
    ),
    Entry("etc/group", text="root:x:0:\nnonroot:x:65532:\n", mode=0o644),
    Entry("etc/nsswitch.conf", text="hosts: files dns\n", mode=0o644),
    Entry("tmp", mode=0o1777),
    Entry("var/etcd"),
    Entry("var/lib/etcd"),
)
#: The images of etcd, which are named after their tools: from the oldest version to the newest.
ETCD_IMAGES = ("etcd-3.5.0", "etcd-3.5", "etcd", "etcd-3.7")

IMAGES: Mapping[str, BaseImage] = {
    "pause": BaseImage("pause", ("3.10",), _pause, config={"Entrypoint": ["/pause"], "User": "65535:65535"}),
    "busybox": BaseImage("library/busybox", ("1.35.0", "latest"), _busybox, config=_SHELL),
    "python": BaseImage(
        "library/python",
        ("3.13-slim",),
        _python,
        config={"Env": [*_SHELL["Env"], "LANG=C.UTF-8"], "Cmd": ["python3"]},
        salt=python_base.RECIPE,
    ),
    "coredns": BaseImage(
        "coredns/coredns",
        (_version("coredns"),),
        _binaries("coredns", folder="/"),
        tools=("coredns",),
        config={"Entrypoint": ["/coredns"]},
    ),
    "olm": BaseImage(
        "operator-framework/olm",
        (_version("olm"),),
        # The unpack job runs /bin/cp in this image.
        _binaries("olm", "catalog", "package-server", "copy-content", "cpb", folder="/bin", tools=True),
        tools=("olm",),
        config=_SHELL_NONROOT,
    ),
    "opm": BaseImage(
        "operator-framework/opm",
        (_version("opm"), "latest"),
        # OLM's catalog pods run /bin/grpc_health_probe in this image.
        _binaries("opm", "grpc_health_probe", folder="/bin", tools=True),
        tools=("opm", "grpc-health-probe"),
        config={**_SHELL_NONROOT, "Entrypoint": ["/bin/opm"], "Cmd": []},
    ),
    "scorecard-test": BaseImage(
        "operator-framework/scorecard-test",
        (_version("operator-sdk"),),
        _binaries("scorecard-test", folder="/usr/local/bin"),
        tools=("operator-sdk",),
        config={**_SHELL_NONROOT, "Cmd": [], "Entrypoint": ["/usr/local/bin/scorecard-test"]},
    ),
    "scorecard-untar": BaseImage(
        "operator-framework/scorecard-untar", (_version("operator-sdk"),), _busybox, config=_SHELL_NONROOT
    ),
    "scorecard-storage": BaseImage(
        "operator-framework/scorecard-storage", (_version("operator-sdk"),), _busybox, config=_SHELL_NONROOT
    ),
    **{tool: _etcd_image(tool) for tool in ETCD_IMAGES},
    "local-path-provisioner": BaseImage(
        "rancher/local-path-provisioner",
        (_version("local-path-provisioner"),),
        _binaries("local-path-provisioner", folder="/usr/bin"),
        tools=("local-path-provisioner",),
        config={"Entrypoint": ["/usr/bin/local-path-provisioner"]},
    ),
}

#: The images that a cluster with OLM needs. The others are packed when they are first used.
CLUSTER_IMAGES = ("pause", "busybox", "coredns", "local-path-provisioner", "olm", "opm", "python")
