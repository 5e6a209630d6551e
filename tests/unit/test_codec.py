from __future__ import annotations

import json
import sys

import pytest

from agent.codec import JsonCodec, Topics, channel_topic, encode_fields
from agent.model import Reading

NOON = 1_795_478_400_000_000_000  # 2026-11-24T00:00:00Z, in ns


class StoppedClock:
    """Wall time is monotonic time plus an offset that the test may step."""

    def __init__(self, trusted: bool = True) -> None:
        self.offset = NOON
        self.true = trusted

    def settle(self) -> tuple[int, bool]:
        return self.offset, self.true


def reading(seq: int, mono_ns: int, *, resumed: bool = False) -> Reading:
    return Reading("weather", seq, mono_ns, encode_fields({"temperature": 21.5, "humidity": 44.1}), resumed)


def test_a_reading_is_the_designs_payload_to_the_byte() -> None:
    taken = 37 * 60_000_000_000 + 123_456_789
    assert (
        JsonCodec().encode([reading(41, taken)], StoppedClock(), 0, False)
        == b'{"ts":"2026-11-24T00:37:00.123456Z","seq":41,"fields":{"temperature":21.5,"humidity":44.1}}'
    )


def test_what_is_out_of_the_ordinary_follows_the_fields_in_a_fixed_order() -> None:
    payload = JsonCodec().encode([reading(1, 5, resumed=True)], StoppedClock(trusted=False), 6, False)
    assert payload.endswith(b'"humidity":44.1},"resumed":true,"clock":"unsynced","backfill":true}')


def test_the_time_of_an_earlier_boot_is_settled_already_and_as_true_as_its_clock_was() -> None:
    of_old = [
        Reading("d", 1, 0, b"{}", wall_ns=NOON + 1_000_000),
        Reading("d", 2, 0, b"{}", wall_ns=2_000_000, unsynced=True),
        Reading("d", 3, 3_000_000, b"{}"),
    ]
    for trusted in (True, False):
        got = json.loads(JsonCodec().encode(of_old, StoppedClock(trusted=trusted), 0, True))
        assert [each["ts"] for each in got] == [
            "2026-11-24T00:00:00.001000Z",
            "1970-01-01T00:00:00.002000Z",
            "2026-11-24T00:00:00.003000Z",
        ]
        assert ["clock" in each for each in got] == [False, True, not trusted]
        assert ["backfill" in each for each in got] == [True, True, False]


def test_backfill_is_what_was_taken_before_the_connection_and_not_at_its_very_moment() -> None:
    payload = JsonCodec().encode([reading(1, 99), reading(2, 100)], StoppedClock(), 100, True)
    assert ["backfill" in each for each in json.loads(payload)] == [True, False]


def test_an_array_keeps_the_order_and_each_readings_own_second() -> None:
    times = [999_999_999, 1_000_000_000, 61_000_001_000, 0]
    readings = [reading(seq, time) for seq, time in enumerate(times)]
    payload = json.loads(JsonCodec().encode(readings, StoppedClock(), 0, True))
    assert [each["ts"][17:] for each in payload] == ["00.999999Z", "01.000000Z", "01.000001Z", "00.000000Z"]
    assert [each["seq"] for each in payload] == [0, 1, 2, 3]


def test_the_wall_time_is_settled_when_it_is_sent() -> None:
    clock, codec, taken = StoppedClock(), JsonCodec(), reading(1, 0)
    assert b'"2026-11-24T00:00:00.000000Z"' in codec.encode([taken], clock, 0, False)
    clock.offset += 3_600_000_000_000  # the clock was an hour slow, and has been set
    assert b'"2026-11-24T01:00:00.000000Z"' in codec.encode([taken], clock, 0, False)


@pytest.mark.parametrize(("count", "array"), [(2, False), (0, False), (0, True)])
def test_an_object_holds_one_reading_and_an_array_at_least_one(count: int, array: bool) -> None:
    with pytest.raises(ValueError, match="readings in one"):
        JsonCodec().encode([reading(1, 0)] * count, StoppedClock(), 0, array)


def test_fields_keep_their_order_and_their_types() -> None:
    assert (
        encode_fields({"z": 1, "a": None, "on": True, "text": 'é"\n', "deep": -1.5e-7})
        == '{"z":1,"a":null,"on":true,"text":"é\\"\\n","deep":-1.5e-7}'.encode()
    )


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), float("-inf"), 2**64, -(2**63) - 1, "\ud800"],
    ids=lambda value: str(type(value)),
)
def test_what_has_no_json_form_is_refused(value: float | str) -> None:
    with pytest.raises(ValueError, match=r"."):
        encode_fields({"fine": 1.5, "none": None, "bad": value})


def test_a_name_of_null_is_not_taken_for_a_missing_number() -> None:
    assert encode_fields({"null": 1.0, "b": "null"}) == b'{"null":1.0,"b":"null"}'


def test_encoded_fields_own_no_more_memory_than_they_show() -> None:
    import tracemalloc

    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = [encode_fields({"temperature": float(n)}) for n in range(1000)]
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    # orjson's own bytes objects take 4 KiB each, which no sys.getsizeof shows.
    assert used < 2 * sum(map(sys.getsizeof, kept))


def test_topics_are_those_of_the_design() -> None:
    topics = Topics("greenhouse-1")
    assert topics.availability == "outstation/greenhouse-1/availability"
    assert topics.telemetry("weather") == "outstation/greenhouse-1/weather/telemetry"
    assert topics.device_availability("weather") == "outstation/greenhouse-1/weather/availability"
    assert topics.set("relay", "door/left é") == "outstation/greenhouse-1/relay/door_left___/set"
    assert Topics("a", "plant/os").status == "plant/os/a/status"
    assert topics.response("ping") == "outstation/greenhouse-1/response/ping"


def test_a_channel_of_any_bytes_is_one_level_without_wildcards() -> None:
    assert channel_topic("+/#\x00 \ud800") == "________"
