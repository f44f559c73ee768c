"""A pod that the API server would refuse costs no member: it is asked before a running pod is deleted."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from etcd_operator.reasons import ALARMS
from pilothouse.controller.events import EVENT
from pilothouse.kube import ApiError, BadRequest, Cause, Forbidden, Invalid, ObjectKey, Resource, ServerError
from pilothouse.testing import Json, ModelApi
from pilothouse.testing.controllers.pods import POD
from pilothouse.testing.model import Call
from tests.etcd.model import world
from tests.unit.etcd.operated import Operated, operated

pytestmark = pytest.mark.usefixtures("virtual_time")

NEAR = {"key": "a", "operator": "Near"}
EQUAL = {"key": "a", "operator": "Equal"}
UNSUPPORTED = 'Unsupported value: "Near": supported values: "Equal", "Exists"'


@asynccontextmanager
async def settled(model: ModelApi, size: int = 3, **spec: Any) -> AsyncIterator[Operated]:
    """Runs the operator with a cluster that serves."""
    async with operated(model) as cluster:
        cluster.apply(size=size, version="3.6.14", **spec)
        await cluster.settled()
        yield cluster


def refuse_near(model: ModelApi) -> None:
    """Lets the API server refuse a toleration with the operator Near."""

    def validate(resource: Resource[Any], new: Json, old: Json | None) -> Sequence[Cause]:
        if str(resource) == str(POD) and old is None and NEAR in new["spec"].get("tolerations", ()):
            return [Cause("spec.tolerations[0].operator", UNSUPPORTED)]
        return world.validate(resource, new, old)

    model.server.validate = validate


def refuse_dry_runs(cluster: Operated, error: ApiError | None, *, after: int = 0) -> None:
    """Lets the API server refuse the dry runs of pods, whose names replace {} in the message.

    The first ones can be accepted: one checks an edited spec, the others are for restarts.
    """
    left = after

    async def before(call: Call) -> None:
        nonlocal left
        if error and call.dry_run and call.resource == str(POD):
            left -= 1
            if left < 0:
                message = error.message.replace("{}", call.key.name)
                raise type(error)(error.status, error.reason, message, error.causes)

    cluster.client.before = before


def notices(model: ModelApi) -> list[tuple[str, str]]:
    """The types and reasons of the Events about alarms."""
    events = ((each["type"], each["reason"]) for each in model.all(EVENT))
    return [each for each in events if each[1] in {*ALARMS, "AlarmEnded"}]


def dry_runs(cluster: Operated) -> list[Call]:
    return [each for each in cluster.client.calls if each.dry_run]


async def reports(cluster: Operated, reason: str) -> None:
    """Waits until the condition Ready has a reason."""
    await cluster.until(lambda: cluster.condition("Ready")["reason"] == reason)


def roll(cluster: Operated, toleration: Json) -> None:
    cluster.apply(pod={"tolerations": [toleration]})


def uses(cluster: Operated, toleration: Json) -> bool:
    pods = cluster.api.all(POD)
    return cluster.ready and all(each["spec"].get("tolerations") == [toleration] for each in pods)


@pytest.mark.parametrize("size", [1, 3])
async def test_an_invalid_pod_leaves_the_last_valid_spec_in_force(model: ModelApi, size: int) -> None:
    async with settled(model, size) as cluster:
        refuse_near(model)
        uids = cluster.uids(POD)
        cluster.apply(size=5, pod={"tolerations": [NEAR]})
        await reports(cluster, "InvalidSpec")
        await asyncio.sleep(120)
        assert cluster.uids(POD) == uids
        assert cluster.condition("Ready")["message"] == (
            "The API server refuses pods with this spec.pod.tolerations: Pod "
            f'"{cluster.status["record"]["voters"][0]["name"]}" is invalid: spec.tolerations[0].operator: '
            f"{UNSUPPORTED}. Correct spec.pod.tolerations, or set it back. "
            "The last valid spec stays in force."
        )
        assert cluster.condition("Interruption").get("status") != "True"
        # Healing goes on with the last valid spec.
        model.remove(POD, ObjectKey("default", cluster.pods[0]))
        await asyncio.sleep(60)
        assert len(cluster.status["members"]["ready"]) == size
        assert notices(model) == [("Warning", "InvalidSpec")]
        kept = cluster.uids(POD)
        # The user puts the spec back: nothing restarts.
        cluster.apply(size=size, pod={})
        await cluster.settled()
        await asyncio.sleep(60)
        assert cluster.uids(POD) == kept
        assert notices(model) == [("Warning", "InvalidSpec"), ("Normal", "AlarmEnded")]
        roll(cluster, EQUAL)
        await cluster.until(lambda: uses(cluster, EQUAL))


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("spec.pod.tolerations", ".spec.tolerations: element 0: duplicate entries"),
        ("spec.pod.topologySpreadConstraints", ".spec.topologySpreadConstraints: duplicate entries for key"),
        ("spec.pod", "field not declared in schema"),
    ],
)
async def test_a_pod_that_does_not_fit_the_schema_leaves_the_last_valid_spec_in_force(
    model: ModelApi, field: str, message: str
) -> None:
    async with settled(model) as cluster:
        uids = cluster.uids(POD)
        answer = f"failed to create typed patch object (default/{{}}; /v1, Kind=Pod): {message}"
        refuse_dry_runs(cluster, ServerError(500, "", answer))
        roll(cluster, EQUAL)
        await reports(cluster, "InvalidSpec")
        assert f"refuses pods with this {field}: failed to create" in cluster.condition("Ready")["message"]
        await asyncio.sleep(60)
        assert cluster.uids(POD) == uids


async def test_several_mistakes_are_reported_in_one_order(model: ModelApi) -> None:
    async with settled(model, 1) as cluster:
        causes = [Cause("spec.containers[0].resources.limits[b]", "B"), Cause("spec.affinity.a", "A")]
        errors = [Invalid(422, "Invalid", "in some order", tuple(each)) for each in (causes, causes[::-1])]

        async def before(call: Call) -> None:
            if call.dry_run:
                errors.reverse()
                raise errors[0]

        cluster.client.before = before
        roll(cluster, EQUAL)
        await reports(cluster, "InvalidSpec")
        written = cluster.status
        asked = len(dry_runs(cluster))
        await asyncio.sleep(300)
        assert len(dry_runs(cluster)) > asked
        assert cluster.status == written
        assert (
            "this spec.pod.affinity: spec.affinity.a: A; spec.containers[0].resources.limits[b]: B."
            in cluster.condition("Ready")["message"]
        )


async def test_a_founding_reports_an_invalid_pod_in_words_for_users(model: ModelApi) -> None:
    async with operated(model) as cluster:
        refuse_near(model)
        cluster.apply(size=1, version="3.6.14", pod={"tolerations": [NEAR]})
        await cluster.until(lambda: cluster.condition("Ready").get("reason") == "KubernetesRefused")
        message = cluster.condition("Ready")["message"]
        assert message.startswith("The task 'the next step is taken' failed: Pod \"example-")
        assert not dry_runs(cluster)
        roll(cluster, EQUAL)
        await cluster.until(lambda: uses(cluster, EQUAL), 600)


POLICIES = [
    Forbidden(403, "Forbidden", 'pods "{}" is forbidden: violates PodSecurity "restricted"'),
    Forbidden(403, "Forbidden", 'pods "{}" is forbidden: failed quota: q: must specify cpu'),
    Invalid(422, "Invalid", "ValidatingAdmissionPolicy 'p' denied request", (Cause("", "denied"),)),
    BadRequest(400, "BadRequest", 'admission webhook "w" denied the request: "{}"'),
]
NOT_PERMITTED = Forbidden(403, "Forbidden", 'pods "{}" is forbidden: User "o" cannot create resource "pods"')


@pytest.mark.parametrize(
    ("error", "field"),
    [
        *((each, "spec.pod") for each in POLICIES),
        (
            Forbidden(403, "Forbidden", 'pods "{}" is forbidden: no PriorityClass with name a was found'),
            "spec.pod.priorityClassName",
        ),
        (
            Forbidden(403, "Forbidden", 'pods "{}" is forbidden: error looking up service account a/b: gone'),
            "spec.pod.serviceAccountName",
        ),
    ],
)
async def test_an_edit_whose_pods_a_policy_refuses_is_not_in_force(
    model: ModelApi, error: ApiError, field: str
) -> None:
    async with settled(model) as cluster:
        uids = cluster.uids(POD)
        refuse_dry_runs(cluster, error)
        roll(cluster, EQUAL)
        await reports(cluster, "InvalidSpec")
        name = cluster.status["record"]["voters"][0]["name"]
        assert cluster.condition("Ready")["message"] == (
            f"The API server refuses pods with this {field}: {error.message.replace('{}', name)}. Correct "
            f"{field}, or set it back, or change what the answer names, such as a policy of the namespace. "
            "The last valid spec stays in force."
        )
        assert cluster.uids(POD) == uids
        # Healing goes on with the last valid spec.
        model.remove(POD, ObjectKey("default", cluster.pods[0]))
        await asyncio.sleep(60)
        assert len(cluster.status["members"]["ready"]) == 3
        refuse_dry_runs(cluster, None)
        await cluster.until(lambda: uses(cluster, EQUAL))


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("error", [*POLICIES, NOT_PERMITTED])
async def test_a_pod_that_a_policy_refuses_keeps_its_member_running(
    model: ModelApi, error: ApiError, size: int
) -> None:
    async with settled(model, size) as cluster:
        await asyncio.sleep(30)
        uids = cluster.uids(POD)
        refuse_dry_runs(cluster, error, after=error is not NOT_PERMITTED)
        roll(cluster, EQUAL)
        await reports(cluster, "KubernetesRefused")
        await asyncio.sleep(120)
        assert cluster.uids(POD) == uids
        assert len(cluster.status["members"]["ready"]) == size
        for type_ in ("Ready", "Progressing", "Degraded"):
            condition = cluster.condition(type_)
            assert condition["reason"] == "KubernetesRefused"
            assert condition["message"].startswith("The API server refuses the new pod of example-")
            [name] = {each for each in cluster.pods if f"pod of {each}," in condition["message"]}
            assert f"The answer is: {error.message.replace('{}', name)}. Correct" in condition["message"]
        assert cluster.condition("Available")["status"] == "True"
        assert cluster.condition("Interruption").get("status") != "True"
        assert not [each for each in model.all(EVENT) if each["reason"] == "UpdatingMember"]
        # A retry every 30 s, and none in between.
        assert len(dry_runs(cluster)) < 12
        version = model.version
        await asyncio.sleep(120)
        assert model.version == version, "nothing writes while the restart is refused"
        assert notices(model) == [("Warning", "KubernetesRefused")]
        refuse_dry_runs(cluster, None)
        await cluster.until(lambda: uses(cluster, EQUAL))
        assert notices(model) == [("Warning", "KubernetesRefused"), ("Normal", "AlarmEnded")]


async def test_a_restart_that_is_refused_after_its_announcement_is_no_interruption(model: ModelApi) -> None:
    async with settled(model, 1) as cluster:
        uids = cluster.uids(POD)

        async def refuse_announced(call: Call) -> None:
            if call.dry_run and cluster.status["record"].get("step"):
                raise Forbidden(403, "Forbidden", "denied")

        cluster.client.before = refuse_announced
        roll(cluster, EQUAL)
        await reports(cluster, "KubernetesRefused")
        await asyncio.sleep(60)
        assert [each for each in model.all(EVENT) if each["reason"] == "UpdatingMember"]
        assert cluster.condition("Interruption").get("status") != "True"
        assert cluster.uids(POD) == uids


async def test_a_step_that_is_more_urgent_does_not_end_the_alarm_about_a_refused_pod(model: ModelApi) -> None:
    async with settled(model) as cluster:
        refuse_dry_runs(cluster, Forbidden(403, "Forbidden", "denied"), after=1)
        roll(cluster, EQUAL)
        await reports(cluster, "KubernetesRefused")
        model.remove(POD, ObjectKey("default", cluster.pods[-1]))
        await cluster.until(lambda: cluster.condition("Ready")["reason"] != "KubernetesRefused")
        await reports(cluster, "KubernetesRefused")
        assert notices(model) == [("Warning", "KubernetesRefused")]


async def test_a_refused_roll_that_is_put_back_restarts_nothing(model: ModelApi) -> None:
    async with settled(model, pod={}) as cluster:
        uids = cluster.uids(POD)
        refuse_dry_runs(cluster, Forbidden(403, "Forbidden", "denied"), after=1)
        roll(cluster, EQUAL)
        await reports(cluster, "KubernetesRefused")
        cluster.apply(pod={})
        await cluster.settled()
        await asyncio.sleep(60)
        assert cluster.uids(POD) == uids


async def test_an_exceeded_quota_is_no_objection_because_the_deletion_frees_it(model: ModelApi) -> None:
    async with settled(model) as cluster:
        used = "exceeded quota: q, requested: pods=1, used: pods=3, limited: pods=3"
        refuse_dry_runs(cluster, Forbidden(403, "Forbidden", f'pods "x" is forbidden: {used}'))
        roll(cluster, EQUAL)
        await cluster.until(lambda: uses(cluster, EQUAL))


@pytest.mark.parametrize(("after", "reason"), [(0, "InvalidSpec"), (1, "KubernetesRefused")])
async def test_no_pod_is_deleted_while_the_api_server_cannot_check_the_new_one(
    model: ModelApi, after: int, reason: str
) -> None:
    async with settled(model) as cluster:
        uids = cluster.uids(POD)
        refuse_dry_runs(cluster, ServerError(500, "InternalError", "failed calling webhook"), after=after)
        roll(cluster, EQUAL)
        await reports(cluster, reason)
        assert "The last attempt failed: failed calling webhook." in cluster.condition("Ready")["message"]
        await asyncio.sleep(60)
        assert cluster.uids(POD) == uids
        refuse_dry_runs(cluster, None)
        await cluster.until(lambda: uses(cluster, EQUAL), 600)


async def test_changes_without_a_new_pod_need_no_dry_run(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=1, version="3.5.33", pod={})
        await cluster.settled()
        cluster.apply(size=3)
        await cluster.settled()
        cluster.apply(version="3.6.14", pod={"labels": {"a": "b"}})
        await cluster.until(lambda: cluster.status["currentVersion"] == "3.6.14")
        model.remove(POD, ObjectKey("default", cluster.pods[0]))
        await cluster.until(lambda: len(cluster.pods) == 3)
        await cluster.settled()
        assert dry_runs(cluster) == []
        roll(cluster, EQUAL)
        await cluster.until(lambda: uses(cluster, EQUAL))
        # One for the spec. For each member, one before the announcement and one before the deletion.
        assert len(dry_runs(cluster)) == 7
