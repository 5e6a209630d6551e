"""The outbox against a model of lists: whatever is put, taken, acknowledged and lost, in whatever order."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.clock import Clock, ClockSettings
from agent.events import EventManager, ManualClock
from agent.model import Reading
from agent.outbox import MEMORY_COST, Outbox
from agent.outbox_settings import OutboxSettings

BODY = bytes(2000)
ROOM = 65_536 // (MEMORY_COST + len(BODY))  # readings that fit

steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 12)),
        st.tuples(st.just("take"), st.integers(0, 12)),
        st.tuples(st.just("ack"), st.sets(st.integers(0, 20))),
        st.tuples(st.just("discard"), st.sets(st.integers(0, 20), max_size=2)),
        st.tuples(st.just("rewind"), st.none()),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(steps=steps, policy=st.sampled_from(["drop_oldest", "drop_newest"]))
def test_nothing_is_lost_but_what_is_counted_and_nothing_comes_out_of_order(
    steps: list[tuple[str, object]], policy: str
) -> None:
    outbox = Outbox(
        EventManager(ManualClock()),
        OutboxSettings.model_validate({"durability": "memory", "max_bytes": 65_536, "policy": policy}),
        Clock(ClockSettings(trust="always"), mono_ns=lambda: 0, wall_now_ns=lambda: 0),
    )
    waiting: list[Reading] = []
    flying: list[Reading] = []
    made = gone = dropped = 0
    for step, what in steps:
        if step == "put":
            assert isinstance(what, int)
            new = [Reading("d", outbox.next_seq("d"), 0, BODY) for _ in range(what)]
            made += what
            for reading in new:
                if len(waiting) + len(flying) >= ROOM:
                    dropped += 1
                    if policy == "drop_newest" or not waiting:
                        continue
                    waiting.pop(0)
                waiting.append(reading)
            outbox.put(new)
        elif step == "take":
            assert isinstance(what, int)
            got = outbox.take(what)
            assert got == waiting[:what]
            flying += got
            del waiting[:what]
        elif step == "rewind":
            outbox.rewind()
            waiting, flying = flying + waiting, []
        else:
            assert isinstance(what, set)
            chosen = [reading for index, reading in enumerate(flying) if index in what]
            (outbox.ack if step == "ack" else outbox.discard)(chosen)
            flying = [reading for reading in flying if reading not in chosen]
            gone += len(chosen) if step == "ack" else 0
            dropped += len(chosen) if step == "discard" else 0
        assert (outbox.waiting, outbox.depth) == (len(waiting), len(waiting) + len(flying))
        assert outbox.size == sum(MEMORY_COST + len(reading.body) for reading in waiting + flying) <= 65_536
        assert outbox.dropped.get("d", 0) == dropped
        assert made == gone + dropped + outbox.depth
    outbox.rewind()
    seqs = [reading.seq for reading in outbox.take(1000)]
    assert seqs == sorted(seqs)
