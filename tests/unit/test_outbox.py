from __future__ import annotations

import itertools
from pathlib import Path
from unittest.mock import patch

import pytest

from agent.clock import Clock, ClockSettings
from agent.events import EventManager, ManualClock
from agent.model import Reading
from agent.outbox import MEMORY_COST, Outbox
from agent.outbox_settings import OutboxSettings


class Mono:
    now = 0

    def __call__(self) -> int:
        return self.now


def make(mono: Mono | None = None, **settings: object) -> Outbox:
    mono = mono or Mono()
    clock = Clock(ClockSettings(trust="always"), mono_ns=mono, wall_now_ns=mono)
    manager = EventManager(ManualClock())
    return Outbox(manager, OutboxSettings.model_validate({"durability": "memory", **settings}), clock)


def readings(first: int, last: int, device: str = "d", body: bytes = b"{}", mono_ns: int = 0) -> list[Reading]:
    return [Reading(device, seq, mono_ns, body) for seq in range(first, last + 1)]


def seqs(taken: list[Reading]) -> list[int]:
    return [reading.seq for reading in taken]


def bounded(count: int, **settings: object) -> Outbox:
    """One that holds ``count`` readings with a body of 1000 bytes."""
    size = MEMORY_COST + 1000
    return make(max_bytes=max(65_536, size * count), **settings)


FULL = 65_536 // (MEMORY_COST + 1000)  # what the smallest outbox takes of those


def test_what_is_not_acknowledged_comes_again_first_and_in_order() -> None:
    outbox = make()
    outbox.put(readings(1, 6))
    first = outbox.take(2)
    second = outbox.take(2)
    outbox.ack([first[1]])
    outbox.rewind()
    assert outbox.depth == outbox.waiting == 5
    assert seqs(outbox.take(9)) == [1, 3, 4, 5, 6]
    assert outbox.take(9) == []
    outbox.ack(second)
    assert outbox.depth == 3


def test_an_acknowledgement_counts_once_and_only_for_what_is_in_flight() -> None:
    outbox = make()
    outbox.put(readings(1, 3))
    taken = outbox.take(1)
    outbox.ack(taken)
    size = outbox.size
    outbox.ack(taken)
    outbox.ack(readings(2, 2))
    assert (outbox.depth, outbox.size) == (2, size)
    outbox.ack(outbox.take(9))
    assert (outbox.depth, outbox.size) == (0, 0)


def test_drop_oldest_spares_what_is_in_flight_and_counts_each_loss_by_device() -> None:
    outbox = bounded(1)
    outbox.put(readings(1, FULL, "a", bytes(1000)))
    flying = outbox.take(2)
    outbox.put(readings(1, 3, "b", bytes(1000)))
    assert outbox.dropped == {"a": 3}
    assert outbox.size <= 65_536
    outbox.rewind()
    assert seqs(outbox.take(3)) == [1, 2, 6]
    outbox.ack(flying)
    assert outbox.dropped == {"a": 3}


def test_drop_newest_keeps_the_old_ones() -> None:
    outbox = bounded(1, policy="drop_newest")
    outbox.put(readings(1, FULL + 5, body=bytes(1000)))
    assert outbox.dropped == {"d": 5}
    assert seqs(outbox.take(1000)) == list(range(1, FULL + 1))


def test_when_all_is_in_flight_the_new_one_is_what_is_dropped() -> None:
    outbox = bounded(1)
    outbox.put(readings(1, FULL, body=bytes(1000)))
    outbox.take(1000)
    outbox.put(readings(1, 1, "new", bytes(1000)))
    assert outbox.dropped == {"new": 1}
    assert outbox.depth == FULL


def test_a_reading_larger_than_the_outbox_is_dropped_and_the_next_is_kept() -> None:
    outbox = bounded(1)
    outbox.put([*readings(1, 1, body=bytes(70_000)), *readings(2, 2)])
    assert outbox.dropped == {"d": 1}
    assert seqs(outbox.take(9)) == [2]


def test_what_is_too_old_is_dropped_before_it_is_sent() -> None:
    mono = Mono()
    outbox = make(mono, max_age=60.0)
    outbox.put(readings(1, 2))
    outbox.put(readings(3, 3, mono_ns=30_000_000_000))
    mono.now = 61_000_000_000
    assert seqs(outbox.take(9)) == [3]
    assert outbox.dropped == {"d": 2}
    mono.now = 95_000_000_000
    outbox.rewind()
    assert outbox.take(9) == []
    assert (outbox.dropped, outbox.size) == ({"d": 3}, 0)


def test_discarding_forgets_and_counts() -> None:
    outbox = make()
    outbox.put(readings(1, 2))
    outbox.discard(outbox.take(1))
    outbox.rewind()
    assert (outbox.dropped, seqs(outbox.take(9))) == ({"d": 1}, [2])


def test_readiness_is_told_from_within_put_and_only_if_something_is_there() -> None:
    outbox = bounded(1)
    depths: list[int] = []
    outbox.on_ready = lambda: depths.append(outbox.waiting)
    outbox.put(readings(1, 3))
    outbox.put([])
    outbox.take(9)
    outbox.put(readings(4, 4, body=bytes(70_000)))
    assert depths == [3, 3]


def test_seq_grows_by_one_for_each_device_by_itself() -> None:
    outbox = make()
    assert [outbox.next_seq("a"), outbox.next_seq("b"), outbox.next_seq("a")] == [1, 1, 2]


def test_a_readings_cost_is_what_it_takes_in_memory() -> None:
    import tracemalloc

    outbox = make()
    count = 5000
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for n in range(count):
            outbox.put([Reading("d", 10**6 + n, 10**15 + n, b"%038d" % n)])
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert used <= outbox.size <= used * 1.2  # a bound that is understated is none


def test_thin_keeps_every_nth_so_that_a_long_outage_keeps_its_shape() -> None:
    outbox = bounded(1, policy="thin")
    total = FULL * 12
    for seq in range(1, total + 1):
        outbox.put(readings(seq, seq, body=bytes(1000)))
    left = seqs(outbox.take(1000))
    assert outbox.dropped == {"d": total - len(left)}
    assert len(left) <= FULL
    gaps = [after - before for before, after in itertools.pairwise(left)]
    coarsest = gaps[0]
    assert coarsest in (16, 32)
    assert left[0] <= coarsest
    assert gaps == sorted(gaps, reverse=True)  # evenly spaced, closer towards the end
    assert set(gaps) <= {coarsest, coarsest // 2, *range(1, coarsest)}
    assert gaps.count(coarsest) + gaps.count(coarsest // 2) > len(gaps) / 2


def test_block_asks_for_rest_at_the_bound_and_for_more_below_it() -> None:
    outbox = bounded(1, policy="block")
    asked: list[bool] = []
    outbox.on_block = asked.append
    outbox.put(readings(1, FULL, body=bytes(1000)))
    assert asked == []
    outbox.put(readings(FULL + 1, FULL + 9, body=bytes(1000)))
    assert (asked, outbox.blocked, outbox.dropped) == ([True], True, {})  # what was on its way is kept
    taken = outbox.take(1000)
    outbox.ack(taken[:9])
    assert asked == [True]
    outbox.ack(taken[9:])
    assert (asked, outbox.blocked) == ([True, False], False)


def test_devices_rest_while_a_link_that_is_up_is_slower_than_they() -> None:
    with patch("agent.outbox.BRAKE", 3_000_000):
        outbox = make()
        asked: list[bool] = []
        outbox.on_block = asked.append
        outbox.put(readings(1, 15_000))  # no link: nothing is won by waiting
        assert asked == []
        outbox.link_up()
        outbox.put(readings(15_001, 15_001))
        assert asked == [True]
        taken = outbox.take(12_000)
        outbox.ack(taken[:4000])
        assert asked == [True]
        outbox.ack(taken[4000:])
        assert asked == [True, False]
        outbox.put(readings(15_002, 24_002))
        outbox.put(readings(24_003, 24_003))
        assert asked == [True, False, True]
        outbox.rewind()
        assert (asked, outbox.dropped) == ([True, False, True, False], {})


def test_block_has_an_end_where_devices_do_not_rest() -> None:
    outbox = bounded(1, policy="block")
    outbox.put(readings(1, 2000, body=bytes(1000)))
    assert outbox.size <= 65_536 + 1_000_000
    assert outbox.dropped["d"] + outbox.depth == 2000


def test_live_readings_pass_the_backlog_and_join_it_when_the_link_is_lost() -> None:
    outbox = make(replay="live_first")
    outbox.put(readings(1, 4))
    outbox.link_up()
    outbox.put(readings(5, 7))
    assert (outbox.live, outbox.waiting) == (3, 7)
    assert seqs(outbox.take(2, live=True)) == [5, 6]
    assert seqs(outbox.take(9)) == [1, 2, 3, 4]
    outbox.rewind()
    outbox.put(readings(8, 8))
    assert (outbox.live, outbox.waiting) == (0, 8)
    outbox.link_up()
    outbox.put(readings(9, 9))
    assert seqs(outbox.take(9, live=True)) == [9]
    assert seqs(outbox.take(99)) == list(range(1, 9))


def test_what_is_younger_than_asked_for_stays() -> None:
    outbox = make()
    outbox.put([*readings(1, 2, mono_ns=5), *readings(3, 3, mono_ns=6), *readings(4, 4, mono_ns=5)])
    assert seqs(outbox.take(9, until_ns=5)) == [1, 2]
    assert seqs(outbox.take(9, until_ns=5)) == []
    assert seqs(outbox.take(9, until_ns=6)) == [3, 4]


def test_the_outboxes_file_is_where_systemd_or_the_desktop_keeps_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/pi")
    assert OutboxSettings().file() == Path("/home/pi/.local/state/outstation/outbox.db")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/outstation:/var/lib/other")
    assert OutboxSettings().file() == Path("/var/lib/outstation/outbox.db")
    assert OutboxSettings(path=Path("/x")).file() == Path("/x")
