"""Modbus without a bus: what registers mean, what is read together, and the driver's questions, in memory."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest

from agent.driver_modbus import QUIET, BusConfig, Timing, tcp_address
from agent.fields import FieldError
from agent.modbus import Register, Unit, plan, shortest, unit_plans
from agent.modbus_bus import Answer, Question, Refusal
from agent.modbus_pdu import Exchange, RtuExchange, TcpExchange, request
from agent.testing import FakeContext
from drivers.modbus import Modbus, ModbusConfig


def register(name: str = "r", address: int = 0, **options: Any) -> Register:
    return Register(name=name, address=address, **options)


def rtu(text: str) -> bytes:
    """A frame with its checksum, by the algorithm of MODBUS over Serial Line V1.02, section 6.2.2."""
    frame = bytes.fromhex(text)
    crc = 0xFFFF
    for byte in frame:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return frame + crc.to_bytes(2, "little")


# ---- registers


@pytest.mark.parametrize(
    ("options", "words", "value"),
    [
        ({}, [0xFF9C], 65436),
        ({"type": "i16"}, [0xFF9C], -100),
        ({"order": "DCBA"}, [0x1234], 0x3412),
        ({"type": "u32"}, [1, 0x86A0], 100000),
        ({"type": "u32", "order": "CDAB"}, [0x86A0, 1], 100000),
        ({"type": "i32", "order": "BADC"}, [0x0100, 0xA086], 100000),
        ({"type": "i32", "order": "DCBA"}, [0xA086, 0x0100], 100000),
        ({"type": "u64", "order": "CDAB"}, [4, 3, 2, 1], 0x0001_0002_0003_0004),
        ({"type": "i64"}, [0xFFFF] * 4, -1),
        ({"type": "f32"}, [0x3DCC, 0xCCCD], 0.1),
        ({"type": "f64"}, [0x4009, 0x21FB, 0x5444, 0x2D18], math.pi),
        ({"type": "string", "length": 2}, [0x4142, 0x4300], "ABC"),
        ({"type": "string", "length": 2, "order": "BADC"}, [0x4241, 0x0043], "ABC"),
        ({"table": "coil"}, [1], True),
    ],
)
def test_words_are_read_and_written_in_their_order(options: dict[str, Any], words: list[int], value: Any) -> None:
    one = register(**options)
    assert one.count == len(words)
    assert one.value(words) == value
    assert type(one.value(words)) is type(value)
    assert one.words(value) == tuple(words)


def test_bit_fields() -> None:
    assert register(bit=15).value([0x8000]) is True
    assert register(bit=0).value([0x8000]) is False
    assert register(bit=4, width=4).value([0x00A7]) == 10
    assert register(type="u32", bit=31).value([0x8000, 0]) is True


def test_text_that_is_none() -> None:
    with pytest.raises(FieldError, match="not text: e420"):
        register(type="string", length=1).value([0xE420])


@pytest.mark.parametrize("value", [0.1, 230.2, 1e-40, 3.4028234663852886e38, -1.5, 16777217.0, 0.0])
def test_the_shortest_number_is_the_same_float(value: float) -> None:
    single = struct.unpack(">f", struct.pack(">f", value))[0]
    assert struct.pack(">f", shortest(single)) == struct.pack(">f", single)
    assert len(repr(shortest(single))) <= len(repr(single))


def test_what_does_not_fit_is_not_written() -> None:
    with pytest.raises(ValueError, match="makes 70000 on the wire, which u16 does not hold"):
        register(scale=0.1).words(7000)
    with pytest.raises(ValueError, match="3 bytes of text do not fit into 1 registers"):
        register(type="string", length=1).words("abc")
    with pytest.raises(ValueError, match="f32 does not hold"):
        register(type="f32").words(1e39)
    assert register(scale=0.1, offset=-40, type="i16").words(21.5) == (615,)
    assert register(scale=0.1, offset=-40).limits() == (-40, 6513.5)
    assert register(scale=-1, type="i16", low=-5).limits() == (-5, 32768)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"table": "coil", "type": "u16"}, "holds single bits"),
        ({"type": "string"}, "length = how many registers"),
        ({"length": 2}, "go together"),
        ({"type": "string", "length": 2, "order": "CDAB"}, "ABCD or BADC"),
        ({"type": "i16", "bit": 1}, "u16, u32 or u64"),
        ({"bit": 15, "width": 2}, r"bit \+ width is 17 here"),
        ({"width": 2}, "give its lowest bit"),
        ({"type": "u32", "address": 65535}, "after the last address"),
        ({"table": "input", "writable": True}, "read-only"),
        ({"bit": 1, "writable": True}, "as a whole"),
        ({"scale": 0}, "scale = 0"),
        ({"table": "coil", "scale": 2}, "for numbers"),
        ({"low": 2, "high": 1}, "is above"),
    ],
)
def test_a_register_that_cannot_be_is_refused_with_what_is_wrong(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        register(**options)


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ([{}, {"address": 2}], "needs a name"),
        ([{"name": "a"}, {"name": "a"}], "two units are called a"),
        ([{"name": "a", "like": "b"}], "names no unit above"),
        ([{"register": []}], "nothing to read"),
        ([{"register": [{"name": "online", "address": 0}]}], "two channels called online"),
        ([{"at_once": 1, "register": [{"name": "x", "address": 0, "type": "f32"}]}], "more than at_once = 1"),
        (
            [
                {"name": "a", "register": [{"name": "b_c", "address": 0}]},
                {"name": "a_b", "register": [{"name": "c", "address": 0}]},
            ],
            "two units have a channel a_b_c",
        ),
    ],
)
def test_units_that_contradict_each_other_are_refused(units: list[dict[str, Any]], message: str) -> None:
    whole = [{"address": 1, "register": [{"name": "x", "address": 0}], **unit} for unit in units]
    with pytest.raises(ValueError, match=message):
        unit_plans([Unit(**unit) for unit in whole])


# ---- what is read together


def blocks(registers: list[Register], **options: int) -> list[tuple[str, int, int]]:
    return [(block.table, block.address, block.count) for block in plan(registers, **options)]


def test_neighbours_are_read_together_and_tables_apart() -> None:
    three = [register("b", 11), register("a", 10), register("c", 12, table="input"), register("d", 12, table="coil")]
    assert blocks(three) == [("coil", 12, 1), ("input", 12, 1), ("holding", 10, 2)]


def test_a_gap_is_read_along_up_to_the_setting() -> None:
    two = [register("a", 0), register("b", 4)]
    assert blocks(two, gap=2) == [("holding", 0, 1), ("holding", 4, 1)]
    assert blocks(two, gap=3) == [("holding", 0, 5)]


def test_no_answer_is_larger_than_it_may_be_and_no_value_is_cut() -> None:
    many = [register(f"r{n}", 2 * n, type="f32") for n in range(100)]
    assert blocks(many) == [("holding", 0, 124), ("holding", 124, 76)]
    assert blocks(many[:3], at_once=3) == [("holding", 0, 2), ("holding", 2, 2), ("holding", 4, 2)]
    assert blocks([register(f"c{n}", n, table="coil") for n in range(2001)]) == [("coil", 0, 2000), ("coil", 2000, 1)]


def test_registers_may_overlap() -> None:
    assert blocks([register("whole", 0, type="u64"), register("part", 1), register("next", 4)]) == [("holding", 0, 5)]


def bits(text: str, count: int) -> tuple[int, ...]:
    """Coils of the bytes that the standard shows: the first in the lowest bit of the first byte (AP 6.1)."""
    value = int.from_bytes(bytes.fromhex(text), "little")
    return tuple(value >> at & 1 for at in range(count))


# ---- frames: the examples of the MODBUS Application Protocol V1.1b3


@pytest.mark.parametrize(
    ("question", "asks", "answers", "words"),
    [
        (Question(1, "coil", 0x13, 0x13), "01 00 13 00 13", "01 03 CD 6B 05", bits("CD6B05", 19)),
        (Question(1, "discrete", 0xC4, 0x16), "02 00 C4 00 16", "02 03 AC DB 35", bits("ACDB35", 22)),
        (Question(1, "holding", 0x6B, 3), "03 00 6B 00 03", "03 06 02 2B 00 00 00 64", (555, 0, 100)),
        (Question(1, "input", 8, 1), "04 00 08 00 01", "04 02 00 0A", (10,)),
        (Question(1, "coil", 0xAC, 1, (1,)), "05 00 AC FF 00", "05 00 AC FF 00", (1,)),
        (Question(1, "holding", 1, 1, (3,)), "06 00 01 00 03", "06 00 01 00 03", (3,)),
        (Question(1, "holding", 1, 2, (10, 0x102)), "10 00 01 00 02 04 00 0A 01 02", "10 00 01 00 02", (10, 0x102)),
    ],
)
def test_the_examples_of_the_standard(question: Question, asks: str, answers: str, words: tuple[int, ...]) -> None:
    """AP 6.1, 6.2, 6.3, 6.4, 6.5, 6.6, 6.12, in RTU and in TCP frames."""
    over_serial = RtuExchange(question)
    assert over_serial.frame == rtu(f"01 {asks}")
    assert over_serial.feed(rtu(f"01 {answers}")) == Answer(words)
    pdu, answer = bytes.fromhex(asks), bytes.fromhex(answers)
    over_tcp = TcpExchange(question, 0x1501)
    assert over_tcp.frame == bytes.fromhex("1501 0000") + (len(pdu) + 1).to_bytes(2, "big") + b"\x01" + pdu
    frame = bytes.fromhex("1501 0000") + (len(answer) + 1).to_bytes(2, "big") + b"\x01" + answer
    assert over_tcp.feed(frame) == Answer(words)
    assert not over_tcp.rest
    assert not over_tcp.skipped


def test_an_exception_has_a_name() -> None:
    """AP 7: the answer to 01 04 A1 00 01 is 81 02."""
    assert request(Question(1, "coil", 0x4A1, 1)).encode() == bytes.fromhex("04A10001")
    answer = RtuExchange(Question(1, "coil", 0x4A1, 1)).feed(rtu("01 81 02"))
    assert answer == Refusal(2)
    assert str(answer) == "illegal data address"
    assert str(Refusal(99)) == "exception 99"


@pytest.mark.parametrize(
    "stray",
    [
        rtu("02 03 02 00 01"),  # another unit
        rtu("01 04 02 00 01"),  # another function
        rtu("01 03 04 00 01 00 02"),  # two registers
        rtu("01 03 02 00 01")[:-1] + b"\xff",
        b"\x01\x03\xff" + bytes(10),
    ],
)
def test_what_is_no_answer_is_passed_over(stray: bytes) -> None:
    exchange = RtuExchange(Question(1, "holding", 0, 1))
    assert exchange.feed(stray) is None
    rest = exchange.feed(rtu("01 03 02 00 2A") + bytes(255))
    assert rest == Answer((42,))
    assert exchange.noise[:5] == stray[:5]


def test_a_late_answer_is_told_by_its_transaction() -> None:
    exchange = TcpExchange(Question(1, "holding", 0, 1), 8)
    assert exchange.feed(bytes.fromhex("0007 0000 0005 01 03 02 0001")) is None
    assert exchange.feed(bytes.fromhex("0008 0000 0005 01 03 02 0002")) == Answer((2,))


def test_behind_a_gateway_the_unit_counts_as_well() -> None:
    exchange = TcpExchange(Question(1, "holding", 0, 1), 8)
    assert exchange.feed(bytes.fromhex("0008 0000 0005 02 03 02 0001")) is None
    assert exchange.why == "an answer to another question"
    assert exchange.feed(bytes.fromhex("0008 0000 0005 01 03 02 0002")) == Answer((2,))


def test_a_write_is_confirmed_by_its_own_words_only() -> None:
    exchange: Exchange = RtuExchange(Question(1, "holding", 1, 1, (3,)))
    assert exchange.feed(rtu("01 06 00 01 00 04")) is None
    assert exchange.why == "an answer that repeats another request"


# ---- the driver


UNITS = [
    {"name": "a", "address": 1, "register": [{"name": "x", "address": 0, "writable": True}]},
    {"name": "b", "address": 2, "like": "a"},
    {"name": "c", "address": 3, "like": "a"},
]


class Bus:
    """Units at the other end of a FakePort: each alive one answers to reading holding register 0 with its address."""

    def __init__(self, **options: Any) -> None:
        self.ctx = FakeContext("bus")
        self.alive = {1, 2, 3}
        options = {"port": "/dev/null", "interval": 1.0, "answer_timeout": 0.25, "unit": UNITS, **options}
        self.driver = self.ctx.start(Modbus, **options)
        for unit in (1, 2, 3):
            self.ctx.port.answer(rtu(f"{unit:02x} 03 0000 0001"), lambda unit=unit: self.said(unit))
        self.ctx.run()

    def said(self, unit: int) -> bytes:
        return rtu(f"{unit:02x} 03 02 00 {unit:02x}") if unit in self.alive else b""

    def readings(self) -> list[dict[str, Any]]:
        found = [sample.fields for sample in self.ctx.samples]
        self.ctx.samples.clear()
        return found

    def asked(self) -> list[int]:
        """Addresses of the units that were asked, since it was last looked."""
        written = self.ctx.port.written
        frames = [written[at : at + 8] for at in range(getattr(self, "seen", 0), len(written), 8)]
        self.seen = len(written)
        return [frame[0] for frame in frames]


def test_each_unit_gives_a_reading_a_round() -> None:
    bus = Bus()
    bus.ctx.advance(0.9)
    assert bus.readings() == [
        {"a_online": True, "a_x": 1},
        {"b_online": True, "b_x": 2},
        {"c_online": True, "c_x": 3},
    ]
    bus.ctx.advance(1)
    assert len(bus.readings()) == 3
    assert not bus.ctx.faults
    assert [channel.name for channel in bus.driver.channels] == [
        "a_online",
        "a_x",
        "b_online",
        "b_x",
        "c_online",
        "c_x",
    ]


@pytest.mark.parametrize(
    ("options", "silence"),
    [
        ({"baudrate": 9600}, 3.5 * 10 / 9600),
        ({"baudrate": 9600, "parity": "even"}, 3.5 * 11 / 9600),
        ({"baudrate": 19200}, 3.5 * 10 / 19200),
        ({"baudrate": 115200}, 0.00175),
        ({"silence": 0.02}, 0.02),
        ({"port": "tcp://host"}, 0),
    ],
)
def test_silence_between_frames(options: dict[str, Any], silence: float) -> None:
    """MODBUS over Serial Line V1.02, section 2.5.1.1."""
    config = ModbusConfig(**{"name": "b", "driver": "modbus", "port": "/dev/null", "unit": UNITS, **options})
    assert config.quiet_before == pytest.approx(silence)


def test_the_next_question_waits_for_the_silence() -> None:
    bus = Bus(baudrate=9600)
    assert bus.asked() == [1]
    bus.ctx.advance(0.0036)
    assert bus.asked() == []
    bus.ctx.advance(0.0001)
    assert bus.asked() == [2]


def test_a_dead_unit_costs_one_time_out_and_then_nothing() -> None:
    bus = Bus()
    bus.ctx.advance(0.9)
    bus.asked()
    bus.alive -= {1}
    bus.ctx.advance(0.35)  # the round at 1.0: the others wait for one time-out
    assert bus.asked() == [1]
    bus.ctx.advance(0.65)
    assert bus.asked() == [2, 3]
    assert [fault.kind for fault in bus.ctx.faults] == ["timeout"]
    assert bus.ctx.faults[0].detail == "a (unit 1): no answer within 0.25 s, for holding 0"
    bus.ctx.advance(1)
    assert bus.asked() == [2, 3, 1]  # at 2.0: after the others
    bus.readings()
    bus.ctx.advance(1)
    assert {"a_online": False} in bus.readings()  # retries = 2: dead at the third
    bus.asked()
    bus.ctx.advance(16)
    assert bus.asked().count(1) == 4  # after 1, 2, 4, 8 s, each begun with a round
    bus.alive |= {1}
    bus.ctx.advance(20)
    assert bus.readings()[-1]["c_x"] == 3
    assert bus.asked()[-3:] == [1, 2, 3]


def test_of_many_dead_units_one_is_asked_where_no_more_time_is_left() -> None:
    bus = Bus(answer_timeout=0.6)
    bus.alive.clear()
    bus.ctx.advance(4)  # dead, all of them
    for _ in range(20):
        bus.asked()
        bus.ctx.advance(1)
        assert len(bus.asked()) <= 1


def test_what_a_unit_refuses_is_told_and_the_rest_is_read() -> None:
    unit = {"address": 1, "register": [{"name": "x", "address": 0}, {"name": "y", "address": 9}]}
    ctx = FakeContext("bus")
    ctx.start(Modbus, port="/dev/null", unit=[unit])
    ctx.port.answer(rtu("01 03 0000 0001"), rtu("01 83 02"))
    ctx.port.answer(rtu("01 03 0009 0001"), rtu("01 03 02 00 07"))
    ctx.advance(1)
    assert ctx.samples[0].fields == {"online": True, "y": 7}
    assert ctx.faults[0].detail == "unit 1: illegal data address, for holding 0"


def test_a_garbled_answer_is_asked_for_again_at_once() -> None:
    bus = Bus()
    bus.ctx.port.answer(rtu("01 03 0000 0001"), lambda: b"\x01\x03\x02\x00\x01\xff\xff")
    bus.ctx.advance(0.5)
    bus.asked()
    bus.readings()
    bus.ctx.advance(1)
    assert bus.asked() == [1, 1, 2, 3]  # again after QUIET; then more than half a time-out is gone
    assert {fault.kind for fault in bus.ctx.faults} == {"checksum"}
    assert bus.readings()[0] == {"b_online": True, "b_x": 2}


def test_silence_is_counted_from_the_last_byte() -> None:
    ctx = FakeContext("bus")
    ctx.start(Modbus, port="/dev/null", unit=UNITS[:1], answer_timeout=0.5)
    ctx.run()
    ctx.port.feed(b"\x01\x03\x02\x00\x01\xff")
    ctx.advance(0.6 * QUIET)
    ctx.port.feed(b"\xff")
    ctx.advance(0.9 * QUIET)
    assert not ctx.faults
    ctx.advance(0.2 * QUIET)
    assert [fault.kind for fault in ctx.faults] == ["checksum"]
    assert ctx.faults[0].detail == "a (unit 1): a checksum that does not fit, for holding 0"


@pytest.mark.parametrize("first", [b"", b"\x01\x03\x02\x00\x01\xff\xff"])
def test_an_answer_counts_that_came_while_the_loop_was_held_up(first: bytes) -> None:
    """The timer of the deadline, or of the silence, runs before the port that is readable in the same turn."""
    ctx = FakeContext("bus")
    ctx.start(Modbus, port="/dev/null", unit=UNITS[:1], answer_timeout=0.5)
    ctx.run()
    if first:
        ctx.port.feed(first)
    tell, ctx.port.on_input = ctx.port.on_input, None
    ctx.port.feed(rtu("01 03 02 00 01"))
    ctx.advance(0.9 * QUIET if first else 0.4)
    ctx.advance(0.2)
    ctx.port.on_input = tell
    assert ctx.samples[0].fields == {"a_online": True, "a_x": 1}
    assert {fault.kind for fault in ctx.faults} <= {"noise"}


def test_a_glitch_before_an_answer_is_no_answer() -> None:
    ctx = FakeContext("bus")
    ctx.start(Modbus, port="/dev/null", unit=UNITS[:1], answer_timeout=0.5)
    ctx.run()
    ctx.port.feed(b"\0")
    ctx.advance(2 * QUIET)
    ctx.port.feed(rtu("01 03 02 00 01"))
    assert ctx.samples[0].fields == {"a_online": True, "a_x": 1}
    assert [fault.kind for fault in ctx.faults] == ["noise"]


def test_an_answer_that_comes_late_is_nobodys() -> None:
    bus = Bus()
    bus.ctx.advance(0.5)
    bus.readings()
    bus.alive.clear()
    bus.ctx.advance(1.4)
    bus.ctx.port.feed(rtu("01 03 02 00 01"))
    assert bus.ctx.faults[-1].kind == "noise"
    assert not any("a_x" in fields for fields in bus.readings())


def test_a_bus_that_is_asked_too_much_says_so_and_forgets_nobody() -> None:
    bus = Bus(interval=0.01, baudrate=1200)
    bus.ctx.advance(1)
    assert "overrun" in {fault.kind for fault in bus.ctx.faults}
    asked = bus.asked()
    assert max(map(asked.count, (1, 2, 3))) - min(map(asked.count, (1, 2, 3))) <= 1


def test_nobody_is_asked_while_the_outbox_is_full() -> None:
    bus = Bus()
    bus.ctx.advance(0.5)
    bus.asked()
    bus.ctx.blocked = True
    bus.ctx.advance(5)
    assert bus.asked() == []


def test_a_write_goes_first_is_confirmed_and_read_back() -> None:
    bus = Bus()
    bus.ctx.advance(0.5)
    bus.readings()
    bus.ctx.port.answer(rtu("02 06 0000 0007"), rtu("02 06 0000 0007"))
    answers = bus.ctx.set("b_x", "7")
    bus.ctx.advance(0.1)
    assert answers == [None]
    assert bus.readings() == [{"b_online": True, "b_x": 2}]


def test_a_write_that_is_refused_or_not_confirmed_says_so() -> None:
    bus = Bus()
    bus.ctx.advance(0.5)
    bus.ctx.port.answer(rtu("01 06 0000 0007"), rtu("01 86 04"))
    assert bus.ctx.set("a_x", "7") == ["a (unit 1) refuses: server device failure"]
    answers = bus.ctx.set("a_x", "8")
    more = bus.ctx.set("a_x", "9")
    bus.ctx.advance(0.3)
    assert answers == ["a (unit 1) did not confirm it; whether it took effect is not known"]
    assert more == ["a (unit 1) did not answer the write before"]
    bus.alive.clear()
    bus.ctx.advance(5)
    assert bus.ctx.set("a_x", "8")[0].startswith("a (unit 1) does not answer")  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="at most 65535"):
        bus.ctx.set("a_x", "70000")


def test_writes_do_not_pile_up() -> None:
    bus = Bus()
    bus.alive.clear()
    bus.ctx.advance(0.01)  # the first question is still open
    answers = [bus.ctx.set("c_x", "1") for _ in range(20)]
    assert next(filter(None, answers)) == ["16 writes wait already; send the next when one is answered"]


def test_modbus_tcp() -> None:
    ctx = FakeContext("bus")
    ctx.start(Modbus, port="tcp://host", unit=UNITS[:1], interval=1)
    assert ctx.port.name == "socket://host:502"
    ctx.port.answer(bytes.fromhex("0001 0000 0006 01 03 0000 0001"), bytes.fromhex("0001 0000 0005 01 03 02 0009"))
    ctx.run()
    assert ctx.samples[0].fields == {"a_online": True, "a_x": 9}


def test_addresses() -> None:
    assert tcp_address("tcp://plc") == ("plc", 502)
    assert tcp_address("tcp://[::1]:5020") == ("::1", 5020)
    bus = BusConfig(name="b", driver="modbus", port="tcp://plc", answer_timeout=0.2)
    assert (bus.place(), bus.as_serial().port) == ("tcp://plc:502", "socket://plc:502")
    assert BusConfig(name="b", driver="modbus", port="tcp://[::1]").as_serial().port == "socket://[::1]:502"
    assert bus.timing() == Timing(character=0.0, silence=0.0, answer=0.2)
    line = BusConfig(name="b", driver="modbus", port="/dev/tcp", baudrate=9600)
    assert (line.place(), line.as_serial()) == ("/dev/tcp", line)
    for wrong in ("tcp://", "tcp://plc:0", "tcp://plc:x", "tcp://plc/1"):
        with pytest.raises(ValueError, match="write tcp://host"):
            ModbusConfig(name="b", driver="modbus", port=wrong, unit=UNITS)
    with pytest.raises(ValueError, match="from 1 to 247, not 0"):
        ModbusConfig(name="b", driver="modbus", port="/dev/null", unit=[{**UNITS[0], "address": 0}])
    config = ModbusConfig(name="b", driver="modbus", port="tcp://plc", unit=[{**UNITS[0], "address": 0}])
    assert Modbus.shares(config) == "tcp://plc:502"


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pymodbus", None)
    ctx = FakeContext("bus")
    with pytest.raises(OSError, match=r'pip install "outstation\[modbus\]"'):
        ctx.start(Modbus, port="/dev/null", unit=UNITS)
