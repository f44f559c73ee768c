"""Who takes part, and how each is started: as the shipped service account, and tuned with 16 workers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from devcluster import toolchain
from devcluster.folders import CHECKOUT
from tests.bench import image
from tests.bench.node import HOME
from tests.bench.usage import Contestant

PEERS = CHECKOUT / "tests" / "bench" / "peers"
BUILD = CHECKOUT / "build" / "bench"
WORKERS = "16"
#: The lock files of what runs on our packages, which are those of the image; of kopf and py-spy; of Ansible.
OURS, KOPF_LOCK, ANSIBLE_LOCK = "runtime", "bench", "bench-ansible"
#: Where our programs find what they import: in this order, as the image has it, and the benchmark's own last.
OUR_PATH = f"{CHECKOUT / 'operator'}:{image.packages(OURS)}:{CHECKOUT}"


@dataclass(frozen=True)
class Place:
    """Where a contestant works, and as whom.

    Attributes:
        server: The API server's URL.
        ca_file: What verifies it.
        token: The service account's.
        airline: The booking API's URL.
        folder: Takes the files that are made of these, and the logs.
    """

    server: str
    ca_file: Path
    token: str
    airline: str
    folder: Path

    @property
    def account(self) -> Path:
        """The service account's folder."""
        return self.folder / "account"

    def write(self) -> None:
        """Writes the service account's folder as the kubelet does, and a kubeconfig for programs in Go."""
        account = self.account
        account.mkdir(parents=True, exist_ok=True)
        (account / "token").write_text(self.token)
        (account / "ca.crt").write_text(self.ca_file.read_text())
        (account / "namespace").write_text(HOME)
        (self.folder / "api-key").write_text("bench")
        cluster = {"server": self.server, "certificate-authority": str(account / "ca.crt")}
        kubeconfig = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "bench", "cluster": cluster}],
            "users": [{"name": "bench", "user": {"token": self.token}}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
            "current-context": "bench",
        }
        (self.folder / "kubeconfig").write_text(json.dumps(kubeconfig))


Command = tuple[list[str | Path], Mapping[str, str]]


@dataclass(frozen=True)
class Entry:
    """One who takes part.

    Attributes:
        name: Its key in the results.
        title: Its name in the docs.
        command: What is run, and with which variables besides PATH.
        writes: How many writes it is meant to make for a new ticket.
    """

    name: str
    title: str
    command: Callable[[Place], Command]
    writes: int = 1

    def start(self, place: Place, log: str = "") -> Contestant:
        """Starts it; its log has the given name, or its own."""
        argv, variables = self.command(place)
        environment = {"PATH": os.environ["PATH"], "HOME": str(place.folder), **variables}
        return Contestant(argv, environment, place.folder / f"{log or self.name}.log")


def _go(program: str, *flags: str, tuned: bool = True) -> Callable[[Place], Command]:
    def command(place: Place) -> Command:
        where = [f"-kubeconfig={place.folder / 'kubeconfig'}", f"-airline={place.airline}"]
        words: list[str | Path] = [toolchain.binary(program), *where, f"-workers={WORKERS}", *flags]
        # A switch of client-go (features/known_features.go): the first list comes as a stream.
        return (words, {"KUBE_FEATURE_WatchListClient": "true"}) if tuned else ([*words, "-defaults"], {})

    return command


def _operator(module: str, **variables: str) -> Callable[[Place], Command]:
    def command(place: Place) -> Command:
        server = urlsplit(place.server)
        environment = {
            # As the image and the manifests have it.
            "PYTHONPATH": OUR_PATH,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "KUBERNETES_SERVICE_HOST": str(server.hostname),
            "KUBERNETES_SERVICE_PORT": str(server.port),
            "WATCH_NAMESPACE": "",
            "POD_NAME": "bench",
            "POD_NAMESPACE": HOME,
            "LEADER_ELECT": "true",
            "HEALTH_ADDRESS": "127.0.0.1:0",
            "LOG_FORMAT": "json",
            "AIRLINE_URL": place.airline,
            "AIRLINE_API_KEY_FILE": str(place.folder / "api-key"),
            **variables,
        }
        return image.inside(place.account, [image.PYTHON, "-m", module]), environment

    return command


def _python(lock: str, *words: str | Path, **variables: str) -> Callable[[Place], Command]:
    def command(place: Place) -> Command:
        environment = {
            "PYTHONPATH": str(image.packages(lock)),
            "PYTHONUNBUFFERED": "1",
            "API_URL": place.server,
            "CA_FILE": f"{image.ACCOUNT}/ca.crt",
            "TOKEN_FILE": f"{image.ACCOUNT}/token",
            "AIRLINE_URL": place.airline,
            **variables,
        }
        return image.inside(place.account, [image.PYTHON, *words]), environment

    return command


def _kopf(**variables: str) -> Callable[[Place], Command]:
    quiet = ["--quiet"] if variables else []
    words: list[str | Path] = ["-m", "kopf", "run", "--all-namespaces", *quiet, PEERS / "kopf_tickets.py"]
    return _python(KOPF_LOCK, *words, **variables)


def _ansible(*, tuned: bool) -> Callable[[Place], Command]:
    def command(place: Place) -> Command:
        # A pod begins with none; artifacts of earlier runs would be rotated.
        shutil.rmtree(image.ROOT / "tmp" / "ansible-operator", ignore_errors=True)
        packages = image.packages(ANSIBLE_LOCK)
        environment = {
            "PATH": f"{packages / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(packages),
            "KUBECONFIG": str(place.folder / "kubeconfig"),
            "WATCH_NAMESPACE": "",
            "AIRLINE_URL": place.airline,
            # A number in the body of a request stays one.
            "ANSIBLE_JINJA2_NATIVE": "true",
        }
        # As in its image: watches.yaml names the playbook from the folder that it starts in.
        program = ("env", f"--chdir={PEERS / 'ansible'}", toolchain.binary("ansible-operator"), "run")
        addresses = ("--metrics-bind-address=0", "--health-probe-bind-address=0")
        if not tuned:
            return image.inside(place.account, [*program, *addresses]), environment
        environment |= {"ANSIBLE_GATHERING": "explicit", "ANSIBLE_PIPELINING": "true"}
        quiet = ("--ansible-verbosity=0", "--ansible-log-events=Nothing")
        at_once = f"--max-concurrent-reconciles={WORKERS}"
        return image.inside(place.account, [*program, at_once, *quiet, *addresses]), environment

    return command


#: The airline's own limit: as fast as it answers.
_RATE = {"AIRLINE_RATE": "100000"}

CLIENT_GO = Entry("client_go", "client-go, typed", _go("bench-clientgo"))
CLIENT_GO_CAREFUL = Entry("client_go_careful", "client-go, as careful", _go("bench-clientgo", "-careful"), 2)
CONTROLLER_RUNTIME = Entry("controller_runtime", "controller-runtime", _go("bench-controllerruntime"))
BARE_LOOP = Entry("bare_loop", "bare Python loop", _python(OURS, PEERS / "bare_loop.py"))
LIKE_FOR_LIKE = Entry(
    "like_for_like", "the runtime, like for like", _operator("tests.bench.peers.like_for_like", **_RATE)
)
SHIPPED = Entry("shipped", "the shipped operator", _operator("flights_operator", **_RATE), 2)
KOPF_TUNED = Entry("kopf_tuned", "kopf, tuned", _kopf(KOPF_TUNED="1"))
KOPF_DEFAULTS = Entry("kopf_defaults", "kopf, defaults", _kopf(), 2)
ANSIBLE = Entry("ansible", "ansible-operator, tuned", _ansible(tuned=True))
#: As many reconciles at once as there are cores, facts gathered for each, all that a task says logged.
ANSIBLE_DEFAULTS = Entry("ansible_defaults", "ansible-operator, defaults", _ansible(tuned=False))
SHIPPED_DEFAULTS = Entry(
    "shipped_defaults", "the shipped operator, defaults", _operator("flights_operator"), 2
)
#: rest.Config's 5 requests a second and a burst of 10; how many workers there are is no default of client-go.
CLIENT_GO_DEFAULTS = Entry("client_go_defaults", "client-go, defaults", _go("bench-clientgo", tuned=False))
#: One reconcile at a time, and no client-side throttling: its GetConfig has none.
CONTROLLER_RUNTIME_DEFAULTS = Entry(
    "controller_runtime_defaults", "controller-runtime, defaults", _go("bench-controllerruntime", tuned=False)
)

#: With every switch that makes them faster.
TUNED = (CLIENT_GO, LIKE_FOR_LIKE, CONTROLLER_RUNTIME, BARE_LOOP, CLIENT_GO_CAREFUL, SHIPPED, KOPF_TUNED)
#: Those that are measured in the first round alone: they take minutes, and no goal is a ratio to them.
ONCE = (KOPF_TUNED, KOPF_DEFAULTS)
#: As they come.
DEFAULTS = (KOPF_DEFAULTS, SHIPPED_DEFAULTS)
#: Those that are measured with another number of tickets, by the section of the results.
SIZES = {
    # 1,000 tickets take client-go as it comes 200 s: ten times as many would take more than half an hour.
    "defaults": (CLIENT_GO_DEFAULTS, CONTROLLER_RUNTIME_DEFAULTS, KOPF_DEFAULTS, SHIPPED_DEFAULTS),
    "ansible": (ANSIBLE, ANSIBLE_DEFAULTS, CLIENT_GO, LIKE_FOR_LIKE, SHIPPED),
}
#: With growing numbers of tickets.
GROWTH = (CLIENT_GO, LIKE_FOR_LIKE, CLIENT_GO_CAREFUL, SHIPPED)
#: On the busy node.
BUSY = (
    CLIENT_GO,
    LIKE_FOR_LIKE,
    CONTROLLER_RUNTIME,
    KOPF_TUNED,
    KOPF_DEFAULTS,
    CLIENT_GO_CAREFUL,
    SHIPPED,
)
ENTRIES = (*TUNED, KOPF_DEFAULTS)


def install_tools() -> None:
    """Makes what the contestants in Python run in, unless it is there."""
    image.install(OURS, KOPF_LOCK, ANSIBLE_LOCK)
