"""The settings that every operator has, read from environment variables."""

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pilothouse.controller.lease import LeaseTiming
from pilothouse.kube.resource import require_flags
from pilothouse.process.environment import Environment, SettingsError, shown
from pilothouse.process.hosts import is_host, is_ipv6


@dataclass(frozen=True)
class Settings:
    """The settings of an operator's process.

    The string below each attribute names its environment variable. A duration is "15", "15s" or "1h30m".
    """

    watch_namespaces: tuple[str, ...] = ()
    """WATCH_NAMESPACE: The namespaces to watch, separated by commas; empty means all. OLM sets it."""
    leader_elect: bool = False
    """LEADER_ELECT: Reconcile only while holding a Lease, so that only one of several replicas does. The
    default outside of a pod is false. Default: true."""
    lease: LeaseTiming = field(default_factory=LeaseTiming)
    health_host: str = ""
    health_port: int = 8081
    """HEALTH_ADDRESS: The address that serves /healthz, /readyz and /metrics: ":8081" or "127.0.0.1:8081".
    Default: :8081."""
    log_format: Literal["json", "console"] = "json"
    """LOG_FORMAT: json or console."""
    log_level: str = "INFO"
    """LOG_LEVEL: DEBUG, INFO, WARNING or ERROR."""
    log_level_file: str = ""
    """LOG_LEVEL_FILE: A file with a log level, for example a mounted key of a ConfigMap. It overrides
    LOG_LEVEL and is read every 5 s, so the level can be changed while the operator runs."""
    metrics_cert_dir: str = ""
    """METRICS_CERT_DIR: A folder with tls.crt and tls.key, for example a mounted Secret. HEALTH_ADDRESS then
    serves TLS, also for the probes. A rotated certificate is used from the next connection on."""
    metrics_auth: bool = False
    """METRICS_AUTH: Require a token with permission to `get` the path /metrics from readers of the metrics.
    Probes need no token. Requires METRICS_CERT_DIR. Default: false."""
    shards: int = 0
    """SHARDS: Split the objects into this number of shards, so that all replicas reconcile. Each shard has a
    Lease. A few times the number of replicas is a good value. With 0, one replica reconciles at a time."""
    resync: float | None = None
    """RESYNC_PERIOD: The time between two resyncs of an object, in seconds, +-10 %; 0 turns resyncs off.
    Default: 600."""
    workers: int | None = None
    """MAX_CONCURRENT_RECONCILES: How many objects of a kind are reconciled at the same time. Default: 16."""
    sync_timeout: float = 120.0
    """SYNC_TIMEOUT: The longest time that one reconcile may take, in seconds."""
    graceful_stop: float = 5.0
    """GRACEFUL_SHUTDOWN_TIMEOUT: How long running reconciles may continue after SIGTERM, in seconds. The rest
    of the stop takes up to 4 s more. The pod's terminationGracePeriodSeconds must be longer than the sum."""
    pod_namespace: str = ""
    """POD_NAMESPACE: The namespace of the Lease. If it is not set: the namespace of the credentials."""
    pod_name: str = ""
    """POD_NAME: The name of the Lease's holder. If it is not set: the host name."""

    def __post_init__(self) -> None:
        require_flags("Settings", leader_elect=self.leader_elect, metrics_auth=self.metrics_auth)

    @classmethod
    def load(cls, variables: Mapping[str, str]) -> "Settings":
        """Reads the settings from environment variables.

        Args:
            variables: The environment variables, for example `os.environ`.

        Raises:
            SettingsError: A variable has a wrong value.
        """
        env = Environment(variables)
        host, port = _address(env.text("HEALTH_ADDRESS", ":8081"))
        return cls(
            watch_namespaces=env.namespaces("WATCH_NAMESPACE"),
            leader_elect=env.flag("LEADER_ELECT", "KUBERNETES_SERVICE_HOST" in variables),
            lease=_lease_timing(env),
            health_host=host,
            health_port=port,
            log_format=env.choice("LOG_FORMAT", ("json", "console"), "json"),
            log_level=env.choice("LOG_LEVEL", ("DEBUG", "INFO", "WARNING", "ERROR"), "INFO"),
            log_level_file=env.text("LOG_LEVEL_FILE", ""),
            metrics_cert_dir=env.text("METRICS_CERT_DIR", ""),
            metrics_auth=_metrics_auth(env),
            shards=_shards(env),
            resync=env.seconds("RESYNC_PERIOD", 0) if env.text("RESYNC_PERIOD", "") else None,
            workers=(
                env.count("MAX_CONCURRENT_RECONCILES", 1, minimum=1, maximum=1000)
                if env.text("MAX_CONCURRENT_RECONCILES", "")
                else None
            ),
            sync_timeout=env.seconds("SYNC_TIMEOUT", cls.sync_timeout, minimum=1),
            graceful_stop=env.seconds("GRACEFUL_SHUTDOWN_TIMEOUT", cls.graceful_stop),
            pod_namespace=env.namespace("POD_NAMESPACE"),
            pod_name=env.pod("POD_NAME") or socket.gethostname(),
        )


def _lease_timing(env: Environment) -> LeaseTiming:
    usual = LeaseTiming()
    timing = LeaseTiming(
        duration=env.seconds("LEASE_DURATION", usual.duration, minimum=1),
        renew_deadline=env.seconds("RENEW_DEADLINE", usual.renew_deadline),
        retry_period=env.seconds("RETRY_PERIOD", usual.retry_period, minimum=0.1),
    )
    wrong = timing.mistake()
    if wrong:
        raise SettingsError(f"The lease settings do not fit together: {wrong}.")
    return timing


def _metrics_auth(env: Environment) -> bool:
    required = env.flag("METRICS_AUTH", False)
    if required and not env.text("METRICS_CERT_DIR", ""):
        raise SettingsError(
            "METRICS_AUTH is true, and METRICS_CERT_DIR is not set. Tokens must not be sent unencrypted: set "
            "METRICS_CERT_DIR to a folder with a certificate."
        )
    return required


def _shards(env: Environment) -> int:
    shards = env.count("SHARDS", 0, maximum=256)
    if shards and not env.flag("LEADER_ELECT", True):
        raise SettingsError(
            f"SHARDS is {shards}, and LEADER_ELECT is false. Shards need Leases: set LEADER_ELECT=true or "
            "SHARDS=0."
        )
    return shards


def _address(text: str) -> tuple[str, int]:
    found = re.fullmatch(r"(?:\[(.*)\]|(.*)):([0-9]{1,5})", text)
    six, host, port = found.groups() if found else (None, "", "")
    valid = is_ipv6(six) if six is not None else not host or is_host(host)
    if not found or not valid or int(port) > 65535:
        raise SettingsError(
            f'HEALTH_ADDRESS is {shown(text)}. Use HOST:PORT, such as ":8081", "127.0.0.1:8081" or '
            '"[::1]:8081".'
        )
    return six or host or "", int(port)
