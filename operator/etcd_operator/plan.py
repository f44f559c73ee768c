"""Decides the next step for an etcd cluster, without any I/O.

`decide` asks the rules in order, and the first one that applies decides. Each rule is a small function with
its reason and its source in the docstring. A rule knows nothing but the observation: what an earlier step did
is in the status, on the volumes and in etcd.
"""

from collections.abc import Iterator

from msgspec.structs import replace

from etcd_operator import founding, healing, resizing, upgrading
from etcd_operator.model import Announce, Blocked, Decision, Observation, Problem, Settled, Wait
from etcd_operator.problems import problems
from etcd_operator.seats import Cluster, listed


def paused(cluster: Cluster) -> Decision | None:
    """`spec.paused` is set: do nothing."""
    if not cluster.desired.paused:
        return None
    return Decision(Wait(300.0), "Paused", "spec.paused is true, so the operator changes nothing.")


def wait_for_members(cluster: Cluster) -> Decision | None:
    """Members do not serve yet, and no other rule can help them: wait."""
    waiting = [each.name for each in cluster.voters if not (cluster.healthy(each) and each.linked)]
    if not waiting:
        return None
    starting = any(cluster.places[name].starting for name in waiting)
    seconds = 1.0 if starting else cluster.pace
    nudge = any(cluster.nudges(cluster.places[name]) for name in waiting)
    return Decision(
        Wait(seconds, nudge), "WaitingForMembers", f"Waiting until these members serve: {listed(waiting)}."
    )


def drop_claim(cluster: Cluster) -> Decision | None:
    """The claimed change is complete: drop its claim."""
    if cluster.record.claim is None:
        return None
    record = replace(cluster.record, claim=None)
    return Decision(Announce(record), "ChangeComplete", "The last change is complete.")


def settle(cluster: Cluster) -> Decision | None:
    """Nothing else applies: the cluster matches the spec, as far as the operator may bring it there."""
    version = cluster.lowest or cluster.desired.version
    return Decision(Settled(), "Settled", f"All members serve with etcd {version}.")


FOUNDED = (
    paused,
    # Protect the data, whatever else is going on.
    healing.blocked_by_second_quorum,
    healing.flip,
    healing.unserve,
    healing.blocked_by_other_cluster,
    healing.record_seats,
    healing.mark_volumes,
    # Run the known members on their own volumes.
    healing.recreate_ended,
    healing.create_pods,
    healing.mark_service,
    healing.serve,
    healing.correct_failing_pods,
    healing.delete_useless_pods,
    healing.blocked_by_lost_quorum,
    healing.without_members,
    # From here on, there is a linearizable member list.
    healing.clean_up,
    healing.remove_lost,
    healing.remove_crashing,
    resizing.remove_learner,
    resizing.restart_learner,
    resizing.give_up_addition,
    resizing.remove_excess,
    resizing.claim_addition,
    resizing.prepare_addition,
    resizing.finish_addition,
    upgrading.upgrade,
    wait_for_members,
    drop_claim,
    settle,
)
"""The rules after `Record.founded`."""

BLOCKING = (
    healing.blocked_by_second_quorum,
    healing.blocked_by_other_cluster,
    healing.blocked_by_lost_quorum,
)
"""Those of them that wait for a user."""

FOUNDING = (paused, *founding.RULES)
"""The rules before `Record.founded`."""


def decide(observation: Observation) -> Decision:
    """Returns the next step towards a healthy cluster that matches the spec, with the reason.

    The step is safe at the instant of the observation, and it is safe to repeat. Carry out one step, then
    observe again.
    """
    cluster = Cluster(observation)
    rules = FOUNDED if observation.record.founded else FOUNDING
    decision = next(decision for rule in rules if (decision := rule(cluster)))
    blocks = (
        each for each in _blocks(cluster) if (each.step, each.reason) != (decision.step, decision.reason)
    )
    others = (Problem(each.reason, each.message) for each in blocks)
    return replace(decision, problems=(*others, *problems(cluster)))


def _blocks(cluster: Cluster) -> Iterator[Decision]:
    """Yields what only a user can end, also while the cluster is paused or another step comes first."""
    if cluster.record.founded:
        yield from (decision for rule in BLOCKING if (decision := rule(cluster)))
    elif cluster.desired.paused:
        decision = next(decision for rule in founding.RULES if (decision := rule(cluster)))
        if isinstance(decision.step, Blocked):
            yield decision
