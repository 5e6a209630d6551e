from __future__ import annotations

import logging
from pathlib import Path

import pytest

from agent.model import Reading
from agent.outbox import MemoryOutbox, OutboxSettings, cost


class Mono:
    now = 0

    def __call__(self) -> int:
        return self.now


def make(**settings: object) -> MemoryOutbox:
    return MemoryOutbox(OutboxSettings.model_validate({"durability": "memory", **settings}), Mono())


def readings(first: int, last: int, device: str = "d", body: bytes = b"{}", mono_ns: int = 0) -> list[Reading]:
    return [Reading(device, seq, mono_ns, body) for seq in range(first, last + 1)]


def seqs(taken: list[Reading]) -> list[int]:
    return [reading.seq for reading in taken]


def bounded(count: int, **settings: object) -> MemoryOutbox:
    """One that holds ``count`` readings with a body of 1000 bytes."""
    size = cost(Reading("d", 1, 0, bytes(1000)))
    return make(max_bytes=max(65_536, size * count), **settings)


FULL = 65_536 // cost(Reading("d", 1, 0, bytes(1000)))  # what the smallest outbox takes of those


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
    outbox = MemoryOutbox(OutboxSettings(durability="memory", max_age=60.0), mono)
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


@pytest.mark.parametrize(
    ("settings", "lines"),
    [
        ({"durability": "memory"}, 0),
        ({"durability": "spill"}, 1),
        ({"durability": "strict", "policy": "thin"}, 2),
        ({"durability": "memory", "policy": "block"}, 1),
    ],
)
def test_what_has_no_effect_yet_is_said_in_one_warning(
    settings: dict[str, str], lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        outbox = make(**settings)
        outbox.start()
        outbox.put(readings(1, 1))
    assert len(caplog.records) == lines


def test_the_outboxes_file_is_where_systemd_or_the_desktop_keeps_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/pi")
    assert OutboxSettings().file() == Path("/home/pi/.local/state/outstation/outbox.db")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/outstation:/var/lib/other")
    assert OutboxSettings().file() == Path("/var/lib/outstation/outbox.db")
    assert OutboxSettings(path=Path("/x")).file() == Path("/x")
