"""What check mode reports when the API server cannot check a creation with a dry run."""

import re
from typing import Any

from pilothouse.kube import ApiError, BadRequest, Forbidden, NotFound, Resource
from pilothouse.kube.resource import not_served

_NO_NAMESPACE = re.compile(r'^namespaces "(?P<name>[^"]+)" not found')
# k8s.io/apiserver, admission/plugin/webhook: a webhook with side effects.
_NO_DRY_RUN = "does not support dry run"


def why_unchecked(resource: Resource[Any], error: ApiError) -> str:
    """Returns why a dry run did not check an object. Empty: the API server refused the object itself.

    Args:
        resource: The kind of the object.
        error: The response to the dry run.
    """
    match error:
        case NotFound() if not error.reason:
            return f"{not_served(resource)}."
        case NotFound() if found := _NO_NAMESPACE.search(error.message):
            return (
                f"the namespace {found['name']} does not exist. Unless an earlier task creates it, the task "
                "will fail."
            )
        case Forbidden(lacks_permission=True):
            return (
                f"{error.message}. Grant this permission, or run the command with the credentials of the "
                "operator."
            )
        case BadRequest() if _NO_DRY_RUN in error.message:
            return f"{error.message}. Declare sideEffects: None for the webhook if it has none."
    return ""
