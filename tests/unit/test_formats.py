"""Every form of mqtt.format, read by a decoder that is not ours, and back by the one of `outstation verify`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.codec import Codec, JsonCodec, Topics, encode_fields
from agent.codec_formats import lacks, make_codec
from agent.codec_senml import UNITS, SenmlCodec, senml_unit
from agent.model import Channel, Reading, Value
from agent.tally import Arrival, Tally, parse

NOON = 1_795_478_400_000_000_000  # 2026-11-24T00:00:00Z, in ns
CHANNELS = (Channel("temperature", "°C"), Channel("humidity", "%", device_class="humidity"), Channel("p", "hPa"))
CARRY_SEQ = ("json", "influx", "senml", "cbor")


class StoppedClock:
    def __init__(self, offset: int = NOON, trusted: bool = True) -> None:
        self.offset = offset
        self.true = trusted

    def settle(self) -> tuple[int, bool]:
        return self.offset, self.true


def codec(form: str) -> Codec:
    if missing := lacks(form):
        pytest.skip(missing)
    made = make_codec(form, "box", Topics("box"), lambda _device: CHANNELS)
    assert hasattr(made, "encode")
    return made


def reading(seq: int, mono_ns: int = 123_456_789, *, resumed: bool = False, **fields: Value) -> Reading:
    return Reading("weather", seq, mono_ns, encode_fields(fields or {"temperature": 21.5, "humidity": 44.1}), resumed)


def encode(form: str, readings: Sequence[Reading], *, since: int = 0, array: bool = True, **clock: Any) -> bytes:
    return codec(form).encode(readings, StoppedClock(**clock), since, array)


# ---- one reading, to the byte


def test_line_protocol_has_the_device_the_agent_the_channels_the_number_and_the_time() -> None:
    line = b"weather,agent=box temperature=21.5,humidity=44.1,seq=41i 1795478400123456041"
    assert encode("influx", [reading(41)], array=False) == line
    assert encode("influx", [reading(41), reading(42)]) == line + b"\n" + line.replace(b"41i", b"42i")[:-2] + b"42"


def test_a_pack_has_base_name_base_time_number_and_units() -> None:
    assert encode("senml", [reading(41, temperature=21.5, humidity=44.1, p=4.35, on=True, note="x", gone=None)]) == (
        b'[{"bn":"outstation/box/weather/","bt":1795478400.123456,"n":":seq","v":41},'
        b'{"n":"temperature","u":"Cel","v":21.5},{"n":"humidity","u":"%RH","v":44.1},{"n":"p","u":"Pa","v":435},'
        b'{"n":"on","vb":true},{"n":"note","vs":"x"}]'
    )


def test_cbor_is_the_map_of_the_json_form() -> None:
    cbor2, cbor_diag = pytest.importorskip("cbor2"), pytest.importorskip("cbor_diag")
    readings = [
        reading(41, resumed=True, z=1.5, on=True, none=None, text="é", big=2**64 - 1, low=-(2**63)),
        reading(42),
    ]
    for array in (False, True):
        some = readings if array else readings[:1]
        payload = encode("cbor", some, since=10**9, array=array, trusted=False)
        said = json.loads(JsonCodec().encode(some, StoppedClock(trusted=False), 10**9, array))
        assert cbor2.loads(payload) == said
        # By a second library, and by the text of RFC 8949, section 8: definite lengths, keys as text and in order.
        text = cbor_diag.cbor2diag(payload)
        text = re.sub(r"(?<=\d)_\d", "", text)  # how wide a number was: an "encoding indicator"
        assert json.loads(text) == said
        assert re.findall(r'"(\w+)":', text) == re.findall(r'"(\w+)":', json.dumps(said))
    assert encode("cbor", [reading(42)], array=False)[:4] == b"\xa3\x62ts"


# ---- by other people's decoders


NASTY: dict[str, Value] = {
    "a b": 1,
    "x,y=z": -2.5e-7,
    'say "hi"': 'a "quoted", = \\ text',
    "back\\slash": "ends in \\",
    "größe": "naïve €",
    "lines": "one\ntwo\r\n three",
    "empty": "",
    "on": True,
    "off": False,
    "none": None,
    "seq": 7,
    "seq_": 8,
    "time": 9,
    "_hidden": 10,
    "": 11,
}


def test_telegrafs_kind_of_parser_reads_our_lines() -> None:
    parse_line = pytest.importorskip("line_protocol_parser").parse_line
    said = parse_line(
        encode(
            "influx", [Reading("weather", 1999, 123_456_789, encode_fields(NASTY))], since=10**9, trusted=False
        ).decode()
    )
    assert (said["measurement"], said["tags"]) == ("weather", {"agent": "box"})
    assert said["time"] == NOON + 123_456_999
    fields = said["fields"]
    assert (fields.pop("seq"), fields.pop("clock"), fields.pop("backfill")) == (1999, "unsynced", True)
    assert fields == {
        "a b": 1.0,
        "x,y=z": -2.5e-7,
        'say "hi"': 'a "quoted", = \\ text',
        "back_slash": "ends in \\",
        "größe": "naïve €",
        "lines": "one\ntwo\r\n three",
        "empty": "",
        "on": True,
        "off": False,
        "seq_": 7.0,
        "seq__": 8.0,
        "time_": 9.0,
        "hidden": 10.0,
        "channel": 11.0,
    }
    assert {type(fields[key]) for key in ("a b", "seq_", "hidden")} == {float}, "a channel has one type for good"


def test_readings_of_one_look_at_a_port_are_different_points() -> None:
    parse_line = pytest.importorskip("line_protocol_parser").parse_line
    lines = encode("influx", [reading(seq) for seq in range(1, 1001)]).decode().splitlines()
    times = {parse_line(line)["time"] for line in lines}
    assert len(times) == 1000
    assert {time // 1000 for time in times} == {(NOON + 123_456_789) // 1000}, "within the microsecond"


def test_a_device_whose_name_influxdb_keeps_for_itself_is_a_measurement_all_the_same() -> None:
    parse_line = pytest.importorskip("line_protocol_parser").parse_line
    for name, measurement in (("_x", "x"), ("__", "device"), ("a-b_1", "a-b_1")):
        payload = encode("influx", [Reading(name, 1, 0, b'{"t":1}')])
        assert parse_line(payload.decode())["measurement"] == measurement


def records(pack: bytes) -> list[tuple[str, Any]]:
    """Name and value of each record, by micropython-senml's parser (it passes over times and units)."""
    senml = pytest.importorskip("senml")
    found = senml.SenmlPack("outstation/box/weather/")
    found.from_json(pack)
    return [(record.name, record.value) for record in found]


def test_somebody_elses_senml_finds_names_and_values() -> None:
    pack = encode("senml", [reading(41, temperature=-3, humidity=44.1, p=1013.2, on=True, text='a"b')])
    assert records(pack) == [
        (":seq", 41),
        ("temperature", -3),
        ("humidity", 44.1),
        ("p", 101320),
        ("on", True),
        ("text", 'a"b'),
    ]


def resolved(pack: bytes) -> list[tuple[str, float, Any]]:
    """As RFC 8428, section 4.6, resolves base values."""
    name, time = "", 0.0
    found = []
    for record in json.loads(pack):
        name, time = record.get("bn", name), record.get("bt", time)
        value = [record[key] for key in ("v", "vb", "vs") if key in record]
        assert len(value) == 1, "section 4.2: exactly one value"
        full = name + record["n"]
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9:./_-]*", full), "section 4.5.1"
        found.append((full, time, value[0]))
    return found


def test_a_pack_of_several_readings_gives_each_its_own_time_and_number() -> None:
    readings = [reading(1, 0, t=1), reading(2, 2_500_000_000, resumed=True, t=2)]
    assert resolved(encode("senml", readings, since=10**9)) == [
        ("outstation/box/weather/:seq", NOON / 1e9, 1),
        ("outstation/box/weather/t", NOON / 1e9, 1),
        ("outstation/box/weather/:backfill", NOON / 1e9, True),
        ("outstation/box/weather/:seq", NOON / 1e9 + 2.5, 2),
        ("outstation/box/weather/t", NOON / 1e9 + 2.5, 2),
        ("outstation/box/weather/:resumed", NOON / 1e9 + 2.5, True),
    ]


def test_a_pack_says_its_base_name_once() -> None:
    assert encode("senml", [reading(1), reading(2)]).count(b'"bn"') == 1


def test_the_time_of_an_earlier_boot_is_as_true_as_its_clock_was() -> None:
    of_old = Reading("weather", 1, 0, b"{}", wall_ns=NOON, unsynced=True)
    of_now = Reading("weather", 2, 5, b"{}")
    for form in CARRY_SEQ:
        for trusted in (True, False):
            old, now = parse(encode(form, [of_old, of_now], trusted=trusted))
            assert (old.ts, old.unsynced, old.backfill) == ("2026-11-24T00:00:00.000000Z", True, True)
            assert (now.unsynced, now.backfill) == (not trusted, False)


def test_a_time_that_senml_would_add_to_now_is_left_out() -> None:
    (first, *rest) = json.loads(encode("senml", [reading(1, 5)], offset=2**28 * 10**9 - 1000, trusted=False))
    assert "bt" not in first
    assert rest[-1] == {"n": ":unsynced", "vb": True}
    assert json.loads(encode("senml", [reading(1, 5)], offset=2**28 * 10**9))[0]["bt"] == 2**28


@pytest.mark.parametrize(
    ("base", "name"),
    [("plant/outstation", "plant/outstation/box/d/"), ("_größe x", "gr__e_x/box/d/")],
)
def test_a_base_name_is_of_the_characters_that_senml_knows(base: str, name: str) -> None:
    made = SenmlCodec(Topics("box", base), lambda _device: ())
    pack = made.encode([Reading("d", 1, 0, b'{"a b/c":1}')], StoppedClock(), 0, False)
    assert [full for full, _, _ in resolved(pack)] == [f"{name}:seq", f"{name}a_b_c"]


@pytest.mark.parametrize(
    ("channel", "unit"),
    [
        (Channel("t", "°C"), "Cel"),
        (Channel("h", "%", device_class="humidity"), "%RH"),
        (Channel("b", "%", device_class="battery"), "%EL"),
        (Channel("x", "%"), "/"),
        (Channel("latitude", "°"), "lat"),
        (Channel("angle", "°"), "deg"),
        (Channel("e", "kWh"), "J"),
        (Channel("s", "furlong"), None),
        (Channel("n"), None),
    ],
)
def test_units_by_their_registered_names(channel: Channel, unit: str | None) -> None:
    found = senml_unit(channel)
    assert (found and found[0]) == unit


def test_every_unit_is_a_registered_one_that_may_be_produced() -> None:
    registered = (  # RFC 8428, section 12.1; RFC 8798, section 2
        "m kg g s A K cd mol Hz rad sr N Pa J W C V F Ohm S Wb T H Cel lm lx Bq Gy Sv kat m2 m3 l m/s m/s2 m3/s l/s "
        "W/m2 cd/m2 bit bit/s lat lon pH dB dBW Bspl count / %RH %EL EL 1/s 1/min S/m B VA VAs var vars J/m kg/m3 deg"
    )
    assert {name for name, _ in UNITS.values()} <= set(registered.split())


# ---- back, as `outstation verify` reads them


@pytest.mark.parametrize("form", CARRY_SEQ)
@pytest.mark.parametrize("array", [False, True])
def test_what_is_out_of_the_ordinary_is_carried_by_every_form(form: str, array: bool) -> None:
    readings = [reading(41, 10**9, resumed=True), reading(42, 3 * 10**9)][: 1 + array]
    got = parse(encode(form, readings, since=2 * 10**9, array=array, trusted=False))
    first = Arrival(41, {"temperature": 21.5, "humidity": 44.1}, "2026-11-24T00:00:01.000000Z", True, True, True)
    second = Arrival(42, first.fields, "2026-11-24T00:00:03.000000Z", unsynced=True)
    assert got == [first, second][: 1 + array]


@pytest.mark.parametrize("form", CARRY_SEQ)
@pytest.mark.parametrize(("count", "array"), [(2, False), (0, False), (0, True)])
def test_as_many_readings_as_the_message_is_for(form: str, count: int, array: bool) -> None:
    with pytest.raises(ValueError, match="readings in one"):
        encode(form, [reading(1)] * count, array=array)


VALUES = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.floats(allow_nan=False)
FIELDS = st.dictionaries(
    st.text(max_size=8), VALUES.filter(lambda v: v not in (float("inf"), float("-inf"))), max_size=5
)
MOMENTS = st.integers(2**28 * 10**9, 4 * 10**18)


def readable(fields: dict[str, Value]) -> bool:
    try:
        encode_fields(fields)
    except ValueError:
        return False
    return True


@settings(max_examples=40, deadline=None)
@given(st.lists(FIELDS.filter(readable), min_size=1, max_size=3), MOMENTS, st.integers(1, 2**53))
def test_all_forms_say_the_same(content: list[dict[str, Value]], wall_ns: int, seq: int) -> None:
    readings = [
        Reading("d", seq + n, 0, encode_fields(fields), bool(n), wall_ns + n * 10**9)
        for n, fields in enumerate(content)
    ]
    said = parse(encode("json", readings))
    if lacks("cbor") is None:
        assert parse(encode("cbor", readings)) == said
    for form in ("influx", "senml"):
        got = parse(encode(form, readings))
        assert [(a.seq, a.ts, a.resumed, a.backfill) for a in got] == [
            (a.seq, a.ts, a.resumed, a.backfill) for a in said
        ]
    for of_json, of_influx in zip(said, parse(encode("influx", readings)), strict=True):
        kept = [value for value in of_json.fields.values() if value is not None]
        assert list(of_influx.fields.values()) == kept


@pytest.mark.parametrize(
    "payload",
    [
        b"\xa3\x62ts\x60\x63seq\x01\x66fields\xa1\x61a" + value
        for value in (
            b"\x41x",
            b"\xc2\x49\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\xa1\x01\x02",
            b"\xf7",
            b"\x82\x01\x02",
        )
    ],
    ids=["bytes", "bignum", "map", "undefined", "array"],
)
def test_what_only_cbor_can_say_is_no_reading(payload: bytes) -> None:
    if lacks("cbor"):
        pytest.skip("no cbor2")
    tally = Tally()
    assert not tally.add("outstation/a/d/telemetry", payload)
    assert tally.garbage == 1


def test_a_number_that_is_too_large_is_a_float_as_in_json() -> None:
    tally = Tally()
    assert tally.add("outstation/a/d/telemetry", b"d n=99999999999999999999,seq=1i 5")
    assert tally.devices["a", "d"].fields == {"n": 1e20}


@settings(max_examples=120, deadline=None)
@given(
    st.binary(max_size=60)
    | st.binary(max_size=40).map(lambda raw: b"w t=1,seq=1i" + raw + b" 5")
    | st.integers(0x80, 0xBF).flatmap(lambda first: st.binary(max_size=40).map(lambda raw: bytes([first]) + raw))
    | st.recursive(st.none() | st.floats() | st.text(max_size=5), lambda inner: st.lists(inner)).map(
        lambda junk: json.dumps([{"bn": "a", "n": ":seq", "v": 1, "bt": junk}, junk]).encode()
    )
)
def test_noise_in_any_form_is_an_error_and_no_defect(payload: bytes) -> None:
    try:
        arrivals = parse(payload)
    except ValueError:
        arrivals = []
    assert all(arrival.seq >= 1 for arrival in arrivals)
    Tally().add("outstation/a/d/telemetry", payload)


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"\x81\x01", "neither an object"),
        (b"\xa1\x61", "not CBOR"),
        (b"\x9f" * 5000, "not CBOR"),
        (b"w seq=1i", "no field|no time"),
        (b"w seq=1i x", "no time"),
        (b"w t=1e999,seq=1i 5", "no number"),
        (b"w t=x,seq=1i 5", "x"),
        (b"w seq=1i -5", "no time"),
        (b'[{"bn":"a","n":"t","v":1}]', ":seq"),
        (b'[{"bn":"a","n":":seq","v":1,"bt":1e300}]', "time"),
        (b'[{"bn":"a","v":1}]', "name"),
    ],
)
def test_what_is_wrong_with_a_message_is_said(payload: bytes, words: str) -> None:
    if payload[0] >= 0x80 and lacks("cbor"):
        pytest.skip("no cbor2")
    with pytest.raises(ValueError, match=words):
        parse(payload)
