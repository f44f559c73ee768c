"""After any sequence of changes and failures, the store equals the server's collection."""

import asyncio
from contextlib import suppress

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pilothouse.informer import Informer
from pilothouse.kube import Expired, KubeError, ObjectKey, ServerError, Unreachable
from pilothouse.testing import VirtualTimeLoop, eventually
from tests.unit.informer.collection import THINGS, Collection, Thing, shadow

TROUBLE = (
    Unreachable("connection reset", maybe_sent=True),
    ServerError(500, "InternalError", "etcd is away"),
    Expired(410, "Expired", "too old"),
)

names = st.sampled_from(["a", "b", "c"])
namespaces = st.sampled_from(["one", "two"])
seconds = st.sampled_from([0.0, 0.01, 0.5, 2.0, 40.0])
steps = st.one_of(
    st.tuples(st.just("put"), names, namespaces),
    st.tuples(st.just("remove"), names, namespaces),
    # An own write, whose answer reaches the store late.
    st.tuples(st.just("own"), names, namespaces, seconds),
    st.tuples(st.just("sleep"), seconds),
    st.tuples(st.just("lag"), seconds),
    st.tuples(st.just("cut"), st.sampled_from([None, *TROUBLE])),
    st.tuples(st.just("refuse"), st.sampled_from(TROUBLE)),
    st.tuples(st.just("forget")),
)


async def observe_later(informer: Informer[Thing], obj: Thing, delay: float) -> None:
    await asyncio.sleep(delay)
    informer.store.observe(obj)


async def play(script: list[tuple[object, ...]], scopes: list[str], streams: bool) -> None:
    collection = Collection(streams=streams)
    informer = Informer(collection.api, THINGS, namespaces=scopes)
    handled: dict[ObjectKey, Thing] = {}
    informer.add_handler(shadow(handled))
    async with asyncio.TaskGroup() as group:
        run = group.create_task(informer.run())
        answers = []
        for step in script:
            match step:
                case ("put", str(name), str(namespace)):
                    collection.put(name, namespace)
                case ("remove", str(name), str(namespace)):
                    collection.remove(name, namespace)
                case ("own", str(name), str(namespace), float(delay)):
                    obj = collection.put(name, namespace)
                    answers.append(group.create_task(observe_later(informer, obj, delay)))
                case ("sleep", float(delay)):
                    await asyncio.sleep(delay)
                case ("lag", float(delay)):
                    collection.lag = delay
                case ("cut", None | KubeError() as failure):
                    collection.cut(failure)
                case ("refuse", KubeError() as failure):
                    collection.refusals.append(failure)
                case ("forget",):
                    collection.forget()
                case _:
                    raise AssertionError(f"{step} is not a step of a script")
        await asyncio.gather(*answers)
        collection.lag = 0
        await eventually(
            lambda: informer.synced and handled == collection.objects and not informer.failing,
            within=3600,
            every=10,
            describe=lambda: f"{handled}\nis not\n{collection.objects}\n{collection.asked[-10:]}",
        )
        stored = {obj.metadata.key: obj for obj in informer.store.values()}
        assert stored == handled, "the handlers' calls do not match the store"
        run.cancel()
        with suppress(asyncio.CancelledError):
            await run


# Time is virtual: on a busy machine the real one says nothing.
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps, max_size=25), st.sampled_from([[], ["one", "two"]]), st.booleans())
# One watch takes the cut while the other is late with an event.
@example([("lag", 40.0), ("cut", None), ("sleep", 0.01), ("put", "a", "two")], ["one", "two"], False)
def test_the_store_becomes_the_collection(script, scopes, streams):
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(play(script, scopes, streams))
