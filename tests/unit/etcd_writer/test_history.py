"""The figures of a history, and the histories whose figures must not be used."""

from pathlib import Path

import pytest

from tests.etcd.history import Begin, End, Entry, History, Kind, Operation, Outcome, encode

MS = 1_000_000
#: Two clients, one operation every 20 ms together.
BEGIN = Begin(at=1000 * MS, interval=40 * MS, clients=2)


def write(
    client: int, number: int, outcome: Outcome = Outcome.OK, *, late: int = 0, attempt: int = 1
) -> Operation:
    """Returns a write that took 2 ms and was called the given number of milliseconds too late."""
    called = BEGIN.due(client, number) + late * MS
    error = "" if outcome is Outcome.OK else "Unavailable: no leader"
    return Operation(
        client, number, Kind.WRITE, "key", called, called + 2 * MS, outcome, "value", 0, attempt, error
    )


def steady(seconds: int = 2, missing: range = range(0)) -> list[Entry]:
    """Returns a history of 50 acknowledged writes per second, without the given numbers of both clients."""
    writes = [
        write(client, number) for number in range(25 * seconds) for client in (0, 1) if number not in missing
    ]
    return [BEGIN, *writes, End(BEGIN.at + seconds * 1000 * MS)]


def failed(*numbers: int) -> list[Entry]:
    """Returns the steady history in which these writes of client 0 are not acknowledged."""
    entries: list[Entry] = []
    for each in steady():
        if isinstance(each, Operation) and each.client == 0 and each.number in numbers:
            entries.append(write(0, each.number, Outcome.UNKNOWN))
        else:
            entries.append(each)
    return entries


def test_a_steady_history_has_no_failures_and_no_gap() -> None:
    history = History.of(steady())
    figures = history.figures()
    assert (figures.seconds, figures.writes, figures.failed_writes) == (2.0, 100, 0)
    assert figures.longest_gap == 20.0
    assert figures.late == 0
    assert history.problem() == ""


def test_a_write_fails_only_if_no_attempt_was_acknowledged() -> None:
    retried = write(0, 5, attempt=2, late=300)
    figures = History.of([*failed(5, 6), retried]).figures()
    assert figures.writes == 100
    assert figures.failed_writes == 1
    assert figures.errors == {"Unavailable": 2}
    assert figures.late == 0  # Only the first attempt has a time at which it is due.


@pytest.mark.parametrize(("number", "on_time"), [(10, 1), (14, 0), (19, 0), (20, 1)])
def test_a_write_that_fails_while_the_writer_is_late_may_not_be_the_fault_of_the_cluster(
    number: int, on_time: int
) -> None:
    """Write 20 of client 0 is open from 800 to 802 ms. Client 1 is late once: from 40 * number + 20 on."""
    entries = [each for each in failed(20) if each != write(1, number)]
    figures = History.of([*entries, write(1, number, late=251)]).figures()
    assert (figures.failed_writes, figures.failed_on_time) == (1, on_time)


def test_the_longest_gap_is_between_two_acknowledgements() -> None:
    figures = History.of(steady(missing=range(10, 20))).figures()
    # The last acknowledgement before the gap is that of write 9 of client 1.
    assert figures.gap_began == pytest.approx(9 * 40 + 20 + 2)
    assert figures.longest_gap == pytest.approx(20 * 40 + 2 - figures.gap_began)


def test_a_cluster_that_never_answers_again_has_a_gap_until_the_end() -> None:
    figures = History.of(steady(missing=range(10, 50))).figures()
    assert figures.longest_gap == pytest.approx(2000 - (9 * 40 + 20 + 2))


def test_an_answer_after_the_end_does_not_extend_the_history() -> None:
    late = Operation(0, 50, Kind.WRITE, "key", BEGIN.at + 1999 * MS, BEGIN.at + 6000 * MS)
    assert History.of([*steady(), late]).figures().longest_gap == 20.0


def test_a_writer_that_was_late_proves_nothing() -> None:
    entries = [*steady(), write(1, 50, late=1001)]
    assert "stalled" in History.of(entries).problem()
    entries[-1] = write(1, 50, late=999)
    assert History.of(entries).problem() == ""


def test_a_writer_that_wrote_too_seldom_proves_nothing() -> None:
    history = History.of([*steady()[:-1], End(BEGIN.at + 2500 * MS)])
    assert "wrote 40.0 times per second" in history.problem()
    assert history.stalled() == ""


def test_a_writer_that_skipped_an_operation_proves_nothing() -> None:
    assert History.of(steady(missing=range(5, 6))).stalled() == "The writer skipped operation 5 of client 0."


def test_a_slow_writer_that_did_all_operations_was_not_stalled() -> None:
    assert History.of([*steady(), write(0, 50, late=60_000)]).stalled() == ""


def test_a_writer_that_gave_up_or_was_killed_proves_nothing() -> None:
    complete = steady()
    assert "killed" in History.of(complete[:-1]).problem()
    assert History.of([*complete[:-1], End(BEGIN.at + 5000 * MS, "No write")]).problem() == "No write"
    with pytest.raises(ValueError, match="did not start"):
        History.of([])


def test_a_history_is_read_as_it_was_written_also_while_it_grows(tmp_path: Path) -> None:
    entries = failed(3)
    file = tmp_path / "history"
    file.write_bytes(b"".join(map(encode, entries)))
    assert History.load(file) == History.of(entries)
    text = file.read_bytes()
    file.write_bytes(text[:-5])  # The last line is incomplete.
    assert History.load(file) == History.of(entries[:-1])
