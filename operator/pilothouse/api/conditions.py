"""Conditions for kinds that an earlier operator wrote in its own way."""

from typing import Annotated, TypeAlias

import msgspec

from pilothouse.kube import Condition

LenientCondition: TypeAlias = Annotated[Condition, msgspec.Meta(extra={"condition": "lenient"})]
"""A condition of which the CRD requires only the type and the status.

The schema of `Condition` is that of metav1.Condition, which refuses a reason with spaces and a condition
without a message. If objects with such conditions are stored, OLM refuses to install the CRD. Declare the
field `conditions` of the status with this type then. The operator reads and writes it as a `Condition`.
"""
