"""The settings that every operator on this runtime has, read from its environment."""

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pilothouse.controller.lease import LeaseTiming
from pilothouse.process.environment import Environment, SettingsError, shown
from pilothouse.process.hosts import is_host, is_ipv6


@dataclass(frozen=True)
class Settings:
    """How the operator runs. Each attribute names its variable; a duration is "15", "15s" or "1h30m"."""

    watch_namespaces: tuple[str, ...] = ()
    """WATCH_NAMESPACE: the namespaces to watch, separated by commas; empty means all. OLM sets it."""
    leader_elect: bool = False
    """LEADER_ELECT: work only while holding a Lease, so that of several replicas one works; outside of a pod
    it is off unless set. Default: true."""
    lease: LeaseTiming = field(default_factory=LeaseTiming)
    health_host: str = ""
    health_port: int = 8081
    """HEALTH_ADDRESS: where /healthz, /readyz and /metrics are served: ":8081" or "127.0.0.1:8081".
    Default: :8081."""
    log_format: Literal["json", "console"] = "json"
    """LOG_FORMAT: json or console."""
    log_level: str = "INFO"
    """LOG_LEVEL: DEBUG, INFO, WARNING or ERROR."""
    log_level_file: str = ""
    """LOG_LEVEL_FILE: a file that holds a level, such as a ConfigMap's key that is mounted; it is read every
    5 s and goes before LOG_LEVEL, so that the level can be changed while the operator runs."""
    metrics_cert_dir: str = ""
    """METRICS_CERT_DIR: a folder with tls.crt and tls.key, a Secret that is mounted; HEALTH_ADDRESS then
    speaks TLS, to the probes too. A rotated certificate is taken up as it comes."""
    metrics_auth: bool = False
    """METRICS_AUTH: who reads /metrics must show a token with the right to `get` the path /metrics; probes
    need none. It needs METRICS_CERT_DIR. Default: false."""
    shards: int = 0
    """SHARDS: all replicas work, and share the objects out in so many shards, a Lease each; 0: one replica
    works at a time. A few times the number of replicas is a good number."""
    resync: float | None = None
    """RESYNC_PERIOD: how often every object is looked at again, seconds, +-10 %; 0: never. Default: 600."""
    workers: int | None = None
    """MAX_CONCURRENT_RECONCILES: how many objects of a kind are worked on at once. Default: 16."""
    sync_timeout: float = 120.0
    """SYNC_TIMEOUT: how long one sync may take, seconds."""
    graceful_stop: float = 5.0
    """GRACEFUL_SHUTDOWN_TIMEOUT: how long syncs in flight may go on after SIGTERM, seconds; 4 s more are for
    the rest of the stop. A pod's terminationGracePeriodSeconds must be longer."""
    pod_namespace: str = ""
    """POD_NAMESPACE: where the Lease is; not set: the namespace that the credentials name."""
    pod_name: str = ""
    """POD_NAME: who holds the Lease; the host's name unless set."""

    @classmethod
    def load(cls, variables: Mapping[str, str]) -> "Settings":
        """Reads the settings from environment variables.

        Args:
            variables: Such as `os.environ`.

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
    asked = env.flag("METRICS_AUTH", False)
    if asked and not env.text("METRICS_CERT_DIR", ""):
        raise SettingsError(
            "METRICS_AUTH is on without METRICS_CERT_DIR: tokens must not travel unencrypted, so give it a "
            "certificate."
        )
    return asked


def _shards(env: Environment) -> int:
    shards = env.count("SHARDS", 0, maximum=256)
    if shards and not env.flag("LEADER_ELECT", True):
        raise SettingsError("SHARDS is set and LEADER_ELECT is off: shards are shared out by Leases.")
    return shards


def _address(text: str) -> tuple[str, int]:
    found = re.fullmatch(r"(?:\[(.*)\]|(.*)):([0-9]{1,5})", text)
    six, host, port = found.groups() if found else (None, "", "")
    sound = is_ipv6(six) if six is not None else not host or is_host(host)
    if not found or not sound or int(port) > 65535:
        raise SettingsError(
            f'HEALTH_ADDRESS is {shown(text)}: use HOST:PORT, such as ":8081", "127.0.0.1:8081" or '
            '"[::1]:8081".'
        )
    return six or host or "", int(port)
