"""What the answers of members mean: an answer that is missing justifies nothing."""

from typing import Any

import pytest
from msgspec.structs import replace

from etcd_operator import errors
from etcd_operator.endpoints import (
    CAUGHT_UP,
    ENDING_DEADLINE,
    Answer,
    alarms,
    ask,
    blindness,
    chosen_list,
    recalled_list,
    rivals,
    state_of,
)
from etcd_operator.etcd import DEADLINE, Alarm, AlarmType, Member, MemberList, MemberStatus
from etcd_operator.model import EndpointState, Signal

CLUSTER, LEADER, FOLLOWER = 7, 1, 2
UNREACHABLE = errors.Unreachable("no connection", maybe_executed=False)
REFUSED = errors.Unreachable("no connection", maybe_executed=False, refused=True)
DENIED = errors.PermissionDenied("etcd refused Status", "PERMISSION_DENIED", "permission denied")
NO_LEADER = errors.NoLeader("etcd refused MemberList", "UNAVAILABLE", "no leader")
SILENT = errors.DeadlineExceeded("no answer", maybe_executed=True)

# Errors that say nothing about whether etcd runs: the network, the certificates, the permissions, or another
# server at this address.
UNKNOWN = [
    UNREACHABLE,
    SILENT,
    DENIED,
    errors.TlsFailed("no handshake"),
    errors.CredentialsError("ca", "not a certificate"),
    errors.Undecodable("not etcd"),
    errors.Unavailable("etcd refused Status", "UNAVAILABLE", "stopped"),
    errors.Refused("etcd refused Status", "INTERNAL", "?"),
]


def status(member: int, **values: Any) -> MemberStatus:
    whole = MemberStatus(
        version="3.6.14",
        db_size=1 << 20,
        db_size_in_use=1 << 19,
        leader=LEADER,
        raft_index=5000,
        raft_applied_index=5000,
        raft_term=3,
        is_learner=False,
        errors=(),
        cluster_id=CLUSTER,
        member_id=member,
        revision=9,
    )
    return replace(whole, **values)


def listing(cluster: int = CLUSTER, term: int = 3) -> MemberList:
    members = tuple(Member(each, str(each), (f"http://{each}:2380",)) for each in (LEADER, FOLLOWER))
    return MemberList(cluster, LEADER, term, members)


LEADS = Answer("a", status(LEADER), listing())
FOLLOWS = Answer("b", status(FOLLOWER), listing())


def of(answer: Answer, *others: Answer, found: tuple[Alarm, ...] = ()) -> EndpointState:
    return state_of(answer, (answer, *others), found)


# ----------------------------------------------------------------------------------------------- health


@pytest.mark.parametrize("error", UNKNOWN, ids=lambda error: type(error).__name__)
def test_an_error_is_unknown_and_not_dead(error: errors.EtcdError) -> None:
    state = of(Answer("b", error=error), LEADS)
    assert (state.health, state.linked) == (Signal.UNKNOWN, Signal.UNKNOWN)
    assert (state.member_id, state.cluster_id, state.version) == (0, 0, "")


@pytest.mark.parametrize("error", UNKNOWN, ids=lambda error: type(error).__name__)
def test_a_voter_that_answers_status_and_not_the_list_is_unknown(error: errors.EtcdError) -> None:
    state = of(replace(FOLLOWS, listed=None, error=error), LEADS)
    assert (state.health, state.linked) == (Signal.UNKNOWN, Signal.UNKNOWN)
    assert state.version == "3.6.14"


def test_a_refused_connection_means_that_no_process_listens() -> None:
    assert of(Answer("b", error=REFUSED)).health is Signal.UNHEALTHY


@pytest.mark.parametrize(
    "answer",
    [
        Answer("b", status(FOLLOWER, leader=0)),
        Answer("b", status(FOLLOWER), error=NO_LEADER),
    ],
    ids=["status", "list"],
)
def test_a_member_without_a_leader_does_not_serve(answer: Answer) -> None:
    assert of(answer).health is Signal.UNHEALTHY


def test_a_voter_serves_if_it_answers_a_linearizable_read() -> None:
    assert of(FOLLOWS, LEADS).health is Signal.HEALTHY


def test_a_learner_serves_without_that_read_which_it_refuses() -> None:
    learner = Answer("b", status(FOLLOWER, is_learner=True))
    assert of(learner, LEADS).health is Signal.HEALTHY


# ----------------------------------------------------------------------------------------------- linked


@pytest.mark.parametrize(
    ("applied", "linked"),
    [(5000, Signal.HEALTHY), (5000 - CAUGHT_UP, Signal.HEALTHY), (4999 - CAUGHT_UP, Signal.UNHEALTHY)],
)
def test_a_member_is_linked_if_it_lacks_few_entries(applied: int, linked: Signal) -> None:
    follower = replace(FOLLOWS, status=status(FOLLOWER, raft_applied_index=applied))
    assert of(follower, LEADS).linked is linked


@pytest.mark.parametrize("values", [{"raft_term": 2}, {"cluster_id": 8}, {"raft_term": 4}], ids=str)
def test_members_that_do_not_agree_are_not_linked(values: dict[str, int]) -> None:
    follower = replace(FOLLOWS, status=status(FOLLOWER, **values))
    assert of(follower, LEADS).linked is Signal.UNHEALTHY


def test_a_leader_that_does_not_answer_leaves_open_whether_a_member_is_linked() -> None:
    assert of(FOLLOWS, Answer("a", error=SILENT)).linked is Signal.UNKNOWN


def test_a_leader_is_linked_with_itself() -> None:
    assert of(LEADS, FOLLOWS).linked is Signal.HEALTHY


def test_two_leaders_of_different_terms_are_not_linked() -> None:
    """The earlier leader has not noticed yet that it was replaced."""
    earlier = replace(LEADS, status=status(LEADER, raft_term=2))
    later = replace(FOLLOWS, status=status(FOLLOWER, leader=FOLLOWER))
    assert of(later, earlier).linked is Signal.HEALTHY
    assert of(replace(FOLLOWS, status=status(FOLLOWER)), earlier).linked is Signal.UNHEALTHY


# --------------------------------------------------------------------------------------- the member list


def test_the_list_of_the_leader_of_the_latest_term_is_chosen() -> None:
    earlier = replace(LEADS, name="c", listed=listing(term=2))
    assert chosen_list([FOLLOWS, LEADS, earlier], CLUSTER) is LEADS
    assert chosen_list([earlier, FOLLOWS], CLUSTER) is FOLLOWS


def test_a_list_of_another_cluster_is_chosen_only_if_there_is_no_other() -> None:
    other = replace(LEADS, listed=listing(cluster=8, term=99))
    assert chosen_list([other, FOLLOWS], CLUSTER) is FOLLOWS
    assert chosen_list([other], CLUSTER) is other


def elected(leader: int, *ids: int, term: int = 3) -> Answer:
    """The answer of a leader whose list has these members."""
    members = tuple(Member(each, str(each), (f"http://{each}:2380",)) for each in ids)
    found = MemberList(CLUSTER, leader, term, members)
    return Answer(str(leader), status(leader, leader=leader, raft_term=term), found)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        pytest.param((elected(1, 1, 2, 3), elected(4, 4, 5, 6, term=9)), ("1",), id="disjoint"),
        pytest.param((elected(1, 1, 2, 3), elected(4, 4, 5, 1, term=9)), ("1",), id="overlapping"),
        pytest.param((elected(1, 1, 2, 3, term=9), elected(4, 4, 5, 1)), ("4",), id="an earlier term"),
        pytest.param((elected(1, 1, 2, 3), elected(2, 1, 2, 3, term=4)), (), id="an election"),
        pytest.param((elected(1, 1, 2, 3), elected(2, 1, 2, 3, 4, term=4)), (), id="an added member"),
        pytest.param((LEADS, FOLLOWS), (), id="one leader"),
        pytest.param((LEADS, Answer("4", status(4, leader=4))), (), id="no list"),
        pytest.param((), (), id="silence"),
    ],
)
def test_members_with_a_quorum_of_their_own_are_rivals(
    answers: tuple[Answer, ...], expected: tuple[str, ...]
) -> None:
    assert rivals(answers, CLUSTER) == expected


def test_the_members_of_another_cluster_are_no_rivals() -> None:
    other = Answer("4", status(4, leader=4, cluster_id=8), listing(cluster=8))
    assert rivals((LEADS, other), CLUSTER) == ()


@pytest.mark.parametrize("answers", [[], [Answer("a", error=SILENT)], [Answer("a", status(LEADER))]], ids=len)
def test_without_a_linearizable_list_there_is_none(answers: list[Answer]) -> None:
    assert chosen_list(answers, CLUSTER) is None


# ------------------------------------------------------------------------------------------------ alarms


@pytest.mark.parametrize(
    ("alarm", "corrupt"),
    [
        (Alarm(FOLLOWER, AlarmType.CORRUPT), True),
        (Alarm(0, AlarmType.CORRUPT), True),
        (Alarm(LEADER, AlarmType.CORRUPT), False),
        (Alarm(FOLLOWER, AlarmType.NOSPACE), False),
    ],
    ids=str,
)
def test_a_member_is_corrupt_by_an_alarm_of_its_own_or_without_a_member(alarm: Alarm, corrupt: bool) -> None:
    assert of(FOLLOWS, LEADS, found=(alarm,)).corrupt is corrupt


class Client:
    """A member with scripted answers. It counts the calls."""

    def __init__(self, answer: Answer, found: tuple[Alarm, ...] | errors.EtcdError = ()) -> None:
        self.answer = answer
        self.found = found
        self.calls: list[str] = []
        self.deadlines: set[float] = set()

    async def status(self, *, deadline: float) -> MemberStatus:
        self.calls.append("status")
        self.deadlines.add(deadline)
        if self.answer.status is None:
            assert self.answer.error
            raise self.answer.error
        return self.answer.status

    async def member_list(self, *, linearizable: bool = True, deadline: float) -> MemberList:
        self.calls.append("list" if linearizable else "own list")
        self.deadlines.add(deadline)
        found = self.answer.listed if linearizable else self.answer.recalled
        if found is None:
            raise self.answer.error or DENIED
        return found

    async def hash_kv(self, revision: int) -> Any:
        self.calls.append(f"hash {revision}")

    async def alarms(self) -> tuple[Alarm, ...]:
        self.calls.append("alarms")
        if isinstance(self.found, errors.EtcdError):
            raise self.found
        return self.found


async def test_alarms_are_read_only_if_a_member_reports_an_error() -> None:
    client: Any = Client(LEADS, (Alarm(LEADER, AlarmType.NOSPACE),))
    assert await alarms({"a": client}, [LEADS]) == ()
    assert client.calls == []
    troubled = replace(LEADS, status=status(LEADER, errors=("etcdserver: no space",)))
    assert await alarms({"a": client}, [troubled]) == client.found


async def test_alarms_that_one_member_does_not_return_are_read_from_the_next() -> None:
    silent: Any = Client(LEADS, SILENT)
    other: Any = Client(FOLLOWS, (Alarm(LEADER, AlarmType.NOSPACE),))
    troubled = [replace(each, status=status(1, errors=("no space",))) for each in (LEADS, FOLLOWS)]
    assert await alarms({"a": silent, "b": other}, troubled) == other.found


async def test_alarms_that_no_member_returns_are_unknown() -> None:
    silent: Any = Client(LEADS, SILENT)
    troubled = replace(LEADS, status=status(LEADER, errors=("memberID:1 alarm:CORRUPT ",)))
    found = await alarms({"a": silent}, [troubled])
    assert found is None
    assert state_of(troubled, [troubled], found).corrupt
    full = replace(LEADS, status=status(LEADER, errors=("memberID:1 alarm:NOSPACE ",)))
    assert not state_of(full, [full], None).corrupt


# ------------------------------------------------------------------------------------------------- calls


@pytest.mark.parametrize(
    ("answer", "hashes", "calls"),
    [
        (LEADS, False, ["status", "list"]),
        (LEADS, True, ["status", "list", "hash 9"]),
        (Answer("a", status(LEADER, is_learner=True)), True, ["status"]),
        (Answer("a", status(LEADER, leader=0)), True, ["status", "own list"]),
        (Answer("a", status(LEADER, leader=0), recalled=listing()), True, ["status", "own list"]),
        (Answer("a", error=SILENT), True, ["status"]),
        (Answer("a", status(LEADER), error=NO_LEADER), True, ["status", "list"]),
    ],
)
async def test_a_member_gets_no_call_that_it_would_answer_with_an_error(
    answer: Answer, hashes: bool, calls: list[str]
) -> None:
    client: Any = Client(answer)
    assert await ask({"a": client}, hashes=hashes) == (answer,)
    assert client.calls == calls


def test_the_list_of_the_longest_log_of_this_cluster_is_recalled() -> None:
    short, long, other = listing(term=1), listing(term=2), listing(cluster=8)
    answers = [
        Answer("a", status(LEADER, leader=0, raft_index=9), recalled=long),
        Answer("b", status(LEADER, leader=0, raft_index=8), recalled=short),
        Answer("c", status(LEADER, leader=0, raft_index=99), recalled=other),
    ]
    assert recalled_list(answers, long.cluster_id) is long
    assert recalled_list([Answer("a", error=SILENT), LEADS], long.cluster_id) is None


async def test_a_member_whose_pod_ends_must_answer_soon() -> None:
    clients = {"a": Client(LEADS), "b": Client(FOLLOWS)}
    members: Any = clients
    await ask(members, hashes=False, ending={"b"})
    assert [each.deadlines for each in clients.values()] == [{DEADLINE}, {ENDING_DEADLINE}]


async def test_one_silent_member_does_not_hide_the_answers_of_the_others() -> None:
    clients: Any = {"a": Client(LEADS), "b": Client(Answer("b", error=SILENT))}
    one, other = await ask(clients, hashes=False)
    assert (one, other) == (LEADS, Answer("b", error=SILENT))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (DENIED, "etcd's auth is enabled"),
        (errors.TlsFailed("the handshake failed"), "The handshake failed."),
        (errors.CredentialsError("ca", "the CA is wrong"), "The CA is wrong."),
        (SILENT, ""),
        (UNREACHABLE, ""),
        (REFUSED, ""),
        (NO_LEADER, ""),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, Exception) else "",
)
def test_blindness_is_only_what_the_operator_can_name(error: errors.EtcdError, words: str) -> None:
    found = blindness([LEADS, Answer("b", error=error)])
    assert words in found
    assert bool(found) == bool(words)
