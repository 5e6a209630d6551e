"""The judge of readings: what a device's numbers prove, and what they do not."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from agent import tally as module
from agent.clock import Clock, ClockSettings
from agent.codec import JsonCodec
from agent.model import Reading
from agent.ranges import Ranges
from agent.tally import Arrival, DeviceTally, Tally, compact, parse


def device(*seqs: int, **marks: bool) -> DeviceTally:
    tally = DeviceTally()
    count(tally, *seqs, **marks)
    return tally


def count(tally: DeviceTally, *seqs: int, dup: bool = False, **marks: bool) -> None:
    for seq in seqs:
        tally.count(Arrival(seq, {"n": seq}, **marks), dup=dup)


def payload(seq: int, **more: Any) -> bytes:
    return json.dumps({"ts": "2026-11-24T00:37:00.123456Z", "seq": seq, "fields": {"n": seq}, **more}).encode()


@pytest.mark.parametrize("array", [False, True])
def test_it_reads_what_the_codec_writes(array: bool) -> None:
    reading = Reading("weather", 41, 10**9, b'{"t":21.5}', resumed=True)
    clock = Clock(
        ClockSettings(trust="kernel"), mono_ns=lambda: 0, wall_now_ns=lambda: 17 * 10**17, synchronised=lambda: False
    )
    (arrival,) = parse(JsonCodec().encode([reading], clock, 2 * 10**9, array))
    ts = "2023-11-14T22:13:21.000000Z"
    assert arrival == Arrival(41, {"t": 21.5}, ts, resumed=True, unsynced=True, backfill=True)
    assert parse(payload(1)) == [Arrival(1, {"n": 1}, "2026-11-24T00:37:00.123456Z")]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[1]", "neither an object nor an array of objects"),
        (b"null", "neither an object"),
        (b"{}", '"seq"'),
        (payload(0), '"seq"'),
        (json.dumps({"ts": "", "seq": True, "fields": {}}).encode(), '"seq"'),
        (json.dumps({"ts": "", "seq": 2**63, "fields": {}}).encode(), '"seq"'),
        (json.dumps({"ts": "", "seq": 1.0, "fields": {}}).encode(), '"seq"'),
        (json.dumps({"ts": "", "seq": 1, "fields": []}).encode(), '"fields"'),
        (json.dumps({"seq": 1, "fields": {}}).encode(), '"ts"'),
        (json.dumps({"ts": "", "seq": 1, "fields": {"t": {}}}).encode(), "t is neither"),
        (b'{"ts":"","seq":1,"fields":{"t":' + b"[" * 500 + b"]" * 500 + b"}}", "t is neither"),
        (b"[" * 100_000, "not JSON"),
        (b'{"ts":"","seq":1,"fields":{"t":"\\ud800"}}', "not JSON"),
        (b"[" + payload(1) + b",3]", "array of objects"),
    ],
)
def test_what_no_agent_sends_is_told_apart(wrong: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse(wrong)


def test_a_gap_is_missing_until_it_comes() -> None:
    tally = device(41, 42, 45, 46)
    assert (tally.lost, tally.missing.text(), tally.holds) == (2, "43..44", False)
    count(tally, 43, 44, backfill=True)
    assert (tally.received, tally.lost, tally.duplicates, tally.disorder, tally.holds) == (6, 0, 0, 0, True)


def test_repeats_are_duplicates_unless_the_broker_says_that_they_are_its_own() -> None:
    tally = device(1, 2, 2, 1)
    count(tally, 2, dup=True)
    assert (tally.received, tally.duplicates, tally.redelivered, tally.holds) == (2, 2, 1, True)
    count(tally, 3, dup=True)  # sent again because we never had it
    assert (tally.received, tally.redelivered) == (3, 1)


def test_order_is_judged_in_each_stream() -> None:
    tally = device(1, 2)
    count(tally, 10)
    count(tally, 3, 4, backfill=True)
    count(tally, 11)
    count(tally, 5, backfill=True)
    assert tally.disorder == 0
    count(tally, 7, 6, backfill=True)
    assert (tally.disorder, tally.holds) == (1, False)
    count(tally, 9)  # below 11, and live
    assert tally.disorder == 2


def test_the_gap_before_a_resumed_reading_proves_nothing() -> None:
    tally = device(1, 2)
    count(tally, 1000, resumed=True)
    count(tally, 1001)
    assert (tally.lost, tally.apart.text(), tally.resumptions, tally.holds) == (0, "3..999", 1, True)


def test_what_the_ended_process_gave_is_no_part_of_that_gap() -> None:
    """Live readings first: 1000 comes before what the disk has kept of the process that ended. 4 is gone for good."""
    tally = device(1, 2)
    count(tally, 1000, resumed=True)
    count(tally, 3, 5, backfill=True)
    assert (tally.missing.text(), tally.apart.text()) == ("4", "6..999")
    count(tally, 7, 6, backfill=True)
    assert (tally.missing.text(), tally.apart.text(), tally.disorder) == ("4", "8..999", 1)


def test_a_resumed_reading_that_fills_a_gap_has_its_own_excuse() -> None:
    tally = device(1, 2)
    count(tally, 2000, resumed=True)
    count(tally, 1000, resumed=True, backfill=True)  # of a process in between
    assert (tally.lost, tally.apart.count) == (0, 997 + 999)
    tally = device(1, 2, 1005)
    assert tally.lost == 1002
    count(tally, 1000, resumed=True, backfill=True)
    assert (tally.missing.text(), tally.apart.text()) == ("1001..1004", "3..999")


def test_listening_begins_anywhere() -> None:
    """In the middle of a backlog that comes beside live readings: what was sent before proves nothing."""
    tally = device(500)
    count(tally, 100, 101, backfill=True)
    assert (tally.first, tally.last, tally.lost, tally.unheard.text()) == (100, 500, 0, "102..499")
    count(tally, 102, backfill=True)
    assert (tally.unheard.text(), tally.disorder, tally.duplicates) == ("103..499", 0, 0)
    # In the middle of a backlog that comes first: it has no gaps.
    tally = device(100, 101, 103, backfill=True)
    assert tally.missing.text() == "102"
    count(tally, 110)
    assert (tally.missing.text(), tally.unheard.text()) == ("102", "104..109")
    count(tally, 112)
    assert tally.missing.text() == "102, 111"


def test_while_nobody_listens_gaps_prove_nothing() -> None:
    tally = Tally()
    for seq in (1, 2, 4):
        tally.add("outstation/g/weather/telemetry", payload(seq))
    weather = tally.devices["g", "weather"]
    assert weather.missing.text() == "3"
    tally.interrupt()
    assert (weather.lost, weather.unheard.text()) == (0, "3")
    tally.add("outstation/g/weather/telemetry", payload(8, backfill=True))
    tally.add("outstation/g/weather/telemetry", payload(20))
    assert (weather.lost, weather.unheard.text()) == (0, "3, 5..7, 9..19")
    tally.add("outstation/g/weather/telemetry", payload(9, backfill=True))
    tally.add("outstation/g/weather/telemetry", payload(22))
    assert (weather.missing.text(), weather.unheard.text()) == ("21", "3, 5..7, 10..19")


def test_another_reading_under_a_number_that_was_taken() -> None:
    tally = device(1, 2, 3)
    tally.count(Arrival(2, {"n": "another"}, backfill=True))
    assert (tally.reused, tally.duplicates, tally.holds) == (1, 0, False)


def test_numbers_that_begin_anew_are_no_duplicates() -> None:
    """Somebody has removed the outbox."""
    tally = device(1, 2, 3, 5)
    tally.count(Arrival(1, {"n": "another"}))
    count(tally, 2, 3)
    assert (tally.restarts, tally.received, tally.duplicates, tally.reused) == (1, 7, 0, 0)
    assert (tally.first, tally.last, tally.lost, tally.disorder, tally.holds) == (1, 3, 1, 0, False)
    tally = device(500, 501)
    count(tally, 1, 2)
    assert (tally.restarts, tally.lost, tally.unheard.count) == (1, 0, 0)
    count(tally, 1, backfill=True)  # sent again after a reconnection
    count(tally, 1, dup=True)
    assert (tally.restarts, tally.duplicates, tally.redelivered) == (1, 1, 1)


def test_what_is_forgotten_is_taken_for_a_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 4)
    tally = device(*range(1, 11))
    count(tally, 1, backfill=True)
    count(tally, 2, 5)  # 5 takes the place of 1
    count(tally, 1, dup=True)
    assert (tally.restarts, tally.reused, tally.duplicates, tally.redelivered) == (0, 0, 3, 1)


def test_memory_is_bounded_however_long_and_bad_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAIRS", 100)
    tally = device(1)
    tracemalloc.start()
    try:
        for seq in range(3, 2003, 2):
            count(tally, seq)
        early = tracemalloc.get_traced_memory()[0]
        for seq in range(2003, 40_003, 2):
            count(tally, seq)
        late = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert tally.lost == 20_000
    assert (tally.missing.pairs, tally.settled) == (100, 19_900)
    assert late - early < 200_000  # the ring of contents fills up: 64 KiB and what it took to grow
    tally.interrupt()
    for seq in range(50_001, 60_001, 2):
        count(tally, seq, backfill=seq == 50_001)
        tally.interrupt()
    assert tally.unheard.pairs == 100
    assert tally.lost == 19_900


def test_a_gap_of_any_size_costs_one_pair() -> None:
    tally = device(1, 2**63 - 1)
    assert (tally.lost, tally.missing.pairs) == (2**63 - 3, 1)


def test_the_latest_reading_is_shown() -> None:
    tally = DeviceTally()
    tally.count(Arrival(7, {"t": 1}, "a"), at=1.0)
    tally.count(Arrival(9, {"t": 3}, "c"), at=2.0)
    tally.count(Arrival(8, {"t": 2}, "b", unsynced=True, backfill=True), at=3.0)
    assert (tally.fields, tally.ts, tally.at) == ({"t": 3}, "c", 2.0)
    assert (tally.unsynced, tally.backfilled) == (1, 1)


def test_agents_and_devices_are_told_apart_and_strange_messages_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEVICES", 3)
    tally = Tally("plant/outstation")
    assert tally.add("plant/outstation/a/weather/telemetry", payload(1))
    assert tally.add("plant/outstation/a/weather/telemetry", b"[" + payload(2) + b"," + payload(3) + b"]")
    assert tally.add("plant/outstation/b/weather/telemetry", payload(1))
    assert tally.add("plant/outstation/b/meter/telemetry", payload(1))
    for topic, said in [
        ("plant/outstation/a/weather/telemetry", b"\x1b[2J"),
        ("plant/outstation/a/telemetry", payload(1)),
        ("plant/outstation/a/weather/status", payload(1)),
        ("outstation/a/weather/telemetry", payload(1)),
        ("plant/outstation/a/\x1b[2J/telemetry", payload(1)),
        ("plant/outstation/c/weather/telemetry", payload(1)),  # one device too many
    ]:
        assert not tally.add(topic, said)
    assert (tally.garbage, tally.received, tally.holds) == (6, 5, True)
    assert tally.first_garbage.startswith(r"plant/outstation/a/weather/telemetry b'\x1b[2J': not JSON")
    assert not tally.add("plant/outstation/a/weather/telemetry", payload(9), retained=True)
    assert (tally.retained, tally.lost) == (1, 0)


def test_fields_are_shown_without_what_moves_a_cursor() -> None:
    assert compact({"t": 21.5, "name": "°C", "on": True, "none": None}) == "t 21.5, name °C, on true, none null"
    assert compact({"\x1b]0;x": "\x1b[2J\x9b"}) == r'"\u001b]0;x" "\u001b[2J\u009b"'


def test_ranges_for_people() -> None:
    ranges = Ranges()
    for first, last in ((1, 1), (3, 9), (11, 12), (20, 20)):
        ranges.add(first, last)
    ranges.add(5, 4)
    assert ranges.text() == "1, 3..9, 11..12, 20"
    assert ranges.text(2) == "1, 3..9 and 2 more ranges"
    assert ranges.text(3) == "1, 3..9, 11..12 and 1 more range"
    with pytest.raises(IndexError):
        Ranges().pop_first()
