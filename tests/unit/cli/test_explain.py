"""The tasks of a playbook as a list and as a diagram."""

import re

from pilothouse.cli.explain import as_mermaid, as_text
from pilothouse.playbook import Play, Playbook, Watch, task
from pilothouse.playbook.groups import Group, Plan
from tests.unit.tickets import TICKET, Ticket, TicketStatus

TicketPlay = Play[Ticket, TicketStatus]


@task("the server is restarted")
async def restart(play: TicketPlay) -> None:
    """Restarts the server, which reads its configuration only when it starts."""


@task("the configuration is written", notify=[restart])
def configure(play: TicketPlay) -> None:
    """Writes the file.

    In a thread.
    """


@task('the volume "data" is there')
async def volume(play: TicketPlay) -> None: ...


@task("the network is there")
async def network(play: TicketPlay) -> None: ...


@task("the schema is new")
async def migrate(play: TicketPlay) -> None: ...


@task("the data is gone")
async def wipe(play: TicketPlay) -> None: ...


def newer_version_requested(play: TicketPlay) -> bool:
    return True


WATCH = Watch(
    TICKET,
    Playbook(
        Play,
        tasks=[
            Group("storage", [volume, network], parallel=True),
            configure,
            Plan("upgrade", [migrate], when=newer_version_requested),
        ],
        cleanup=[wipe],
        finalizer="tests.dev/data",
    ),
    resync=60,
    workers=4,
    selector="app=web",
)

TEXT = """\
Ticket (tests.dev/v1)
  reconciled  when created or changed, and about every 60 s; up to 4 at the same time
  selector    app=web
  finalizer   tests.dev/data, stored before the first task

tasks, in this order; a failure ends the reconcile
  1. storage (at the same time)
    1.1. the volume "data" is there
    1.2. the network is there
  2. the configuration is written
     Writes the file.
     notifies: the server is restarted
  3. upgrade (a plan, when newer version requested, in order)
    3.1. the schema is new

handlers, each once at the end if a task that notifies it has changed something
  1. the server is restarted
     Restarts the server, which reads its configuration only when it starts.

cleanup of a deleted object; once no task fails, the finalizer is removed
  1. the data is gone
"""


def test_the_list_has_every_task_in_its_place() -> None:
    assert as_text(WATCH) == TEXT


def test_the_diagram_has_every_task_and_no_loose_end() -> None:
    chart = as_mermaid(WATCH)
    assert chart.startswith("flowchart TD\n")
    nodes = dict(re.findall(r"(n\d+)[\[({/]+\"(.*?)\"", chart))
    for name in (
        "the volume #quot;data#quot; is there",
        "the network is there",
        "the configuration is written",
    ):
        assert name in nodes.values()
    assert chart.count("subgraph") == len(re.findall(r"^ *end$", chart, re.MULTILINE)) == 2
    arrows = re.findall(r"(n\d+) (?:-->|-- yes -->|-- no -->|-\. notifies \.->) (n\d+)", chart)
    assert len(arrows) == len(re.findall("->", chart))
    assert {end for arrow in arrows for end in arrow} <= set(nodes)
    by_name = {nodes[start]: nodes[end] for start, end in arrows if "notifies" not in chart.split(start)[0]}
    assert by_name["storage (at the same time)"] == "the configuration is written"
    starts = {name for name in nodes if not any(end == name for _, end in arrows)}
    # The events that start a reconcile, and the first steps of a group.
    assert {nodes[name] for name in starts} == {
        "Ticket is created, changed or requeued",
        "Ticket is deleted",
        "the volume #quot;data#quot; is there",
        "the network is there",
        "the schema is new",
    }
