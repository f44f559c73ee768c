"""A typed client for the Kubernetes API, based on aiohttp. It decodes objects into views."""

from typing import TYPE_CHECKING

from pilothouse.kube.answers import EventType, Misfit, Page, WatchEvent
from pilothouse.kube.api import Api, PatchType
from pilothouse.kube.client import Client
from pilothouse.kube.codec import encodable
from pilothouse.kube.config import ClientConfig
from pilothouse.kube.deadline import Deadline, DeadlineExceeded
from pilothouse.kube.errors import (
    AlreadyExists,
    ApiError,
    BadRequest,
    Cause,
    ConfigError,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    KubeError,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    RequestEntityTooLarge,
    ServerError,
    TooManyRequests,
    Unauthorized,
    Undecodable,
    Unreachable,
    UnsupportedMediaType,
    WatchListUnsupported,
)
from pilothouse.kube.files import RotatedFiles
from pilothouse.kube.objects import (
    EMPTY,
    Condition,
    KubeObject,
    ObjectKey,
    ObjectMeta,
    OwnerReference,
    PartialObjectMetadata,
    Unstructured,
    ordered,
    version,
)
from pilothouse.kube.resource import Resource, can_be_name, unstructured
from pilothouse.kube.retry_after import retry_after_seconds
from pilothouse.kube.secrets import (
    hide_contents,
    hiding_contents,
    holds_secrets,
    is_secret_path,
)
from pilothouse.kube.subresources import Scale, evict, pod_log, scale_of
from pilothouse.kube.tls import TlsFiles, tls_context
from pilothouse.kube.tokens import FileToken, StaticToken, TokenSource

if TYPE_CHECKING:
    from pilothouse.kube.discovery import Discovery

__all__ = [
    "EMPTY",
    "AlreadyExists",
    "Api",
    "ApiError",
    "BadRequest",
    "Cause",
    "Client",
    "ClientConfig",
    "Condition",
    "ConfigError",
    "Conflict",
    "Deadline",
    "DeadlineExceeded",
    "Discovery",
    "EventType",
    "Expired",
    "FileToken",
    "Forbidden",
    "Invalid",
    "KubeError",
    "KubeObject",
    "MethodNotAllowed",
    "Misfit",
    "NotAcceptable",
    "NotFound",
    "ObjectKey",
    "ObjectMeta",
    "OwnerReference",
    "Page",
    "PartialObjectMetadata",
    "PatchType",
    "RequestEntityTooLarge",
    "Resource",
    "RotatedFiles",
    "Scale",
    "ServerError",
    "StaticToken",
    "TlsFiles",
    "TokenSource",
    "TooManyRequests",
    "Unauthorized",
    "Undecodable",
    "Unreachable",
    "Unstructured",
    "UnsupportedMediaType",
    "WatchEvent",
    "WatchListUnsupported",
    "can_be_name",
    "encodable",
    "evict",
    "hide_contents",
    "hiding_contents",
    "holds_secrets",
    "is_secret_path",
    "ordered",
    "pod_log",
    "retry_after_seconds",
    "scale_of",
    "tls_context",
    "unstructured",
    "version",
]


if not TYPE_CHECKING:
    # Hidden from type checkers: with this function, they would accept every misspelled name.
    def __getattr__(name: str) -> object:
        """Imports Discovery when it is first used (PEP 562): an operator that runs does not need it."""
        if name != "Discovery":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from pilothouse.kube.discovery import Discovery

        return Discovery
