"""Modbus registers: what the configuration says of them, which are read together, and what their words mean. Pure.

Source: MODBUS Application Protocol Specification V1.1b3, "AP" below. Nothing here needs a library: ``modbus_pdu`` makes
and reads the frames, ``modbus_bus`` decides who is asked when.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agent.codec import channel_topic
from agent.fields import ChannelSettings, FieldError, FieldRules, QuantitySettings
from agent.model import Channel, Value
from agent.outputs import Output

REGISTERS: Final = 125
"""Most registers in one answer (AP 6.3, 6.4): 250 bytes of the 253 that a PDU has."""
BITS: Final = 2000
"""Most coils or discrete inputs in one answer (AP 6.1, 6.2)."""
ADDRESSES: Final = 65536
ONLINE: Final = "online"
"""The channel of each unit that says whether it answers."""

Table: TypeAlias = Literal["holding", "input", "coil", "discrete"]
Type: TypeAlias = Literal["u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64", "string"]

_FORMATS: Final = {"u16": "H", "i16": "h", "u32": "I", "i32": "i", "u64": "Q", "i64": "q", "f32": "f", "f64": "d"}
_TABLES: Final[tuple[Table, ...]] = ("coil", "discrete", "input", "holding")


class Register(QuantitySettings):
    """One channel of a unit: ``[[device.unit.register]]``. A value of several registers is one too."""

    name: str = Field(pattern=r"^[A-Za-z0-9_]+$", max_length=64, description="Name; the unit's name stands before it.")
    table: Table = Field("holding", description="Where it is: holding or input registers, coils, discrete inputs.")
    address: int = Field(
        ge=0,
        lt=ADDRESSES,
        description="Address as on the wire, from 0. Manuals that call a register 40001 or 30001 mean address 0.",
    )
    type: Type | None = Field(
        None, description='Type of the value in registers; default "u16". Coils and discrete inputs have none.'
    )
    order: Literal["ABCD", "CDAB", "BADC", "DCBA"] = Field(
        "ABCD",
        description="Order of the bytes: ABCD as the standard has it, CDAB the low word first, BADC the bytes of each "
        "word swapped, DCBA both.",
    )
    length: int = Field(0, ge=0, le=REGISTERS, description="string: how many registers it takes.")
    bit: int | None = Field(None, ge=0, le=63, description="A bit field of an unsigned type: its lowest bit, from 0.")
    width: int = Field(1, ge=1, le=63, description="Bits of the bit field; 1 makes it true or false.")
    writable: bool = Field(False, description="May be set: a coil or a holding register, as a whole.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problem = self._problem()
        if problem:
            raise ValueError(f"register {self.name}: {problem}")
        self.settings()
        return self

    def _problem(self) -> str:
        if self.of_bits:
            if self.type or self.bit is not None or self.length or self.order != "ABCD":
                return f'table = "{self.table}" holds single bits: type, order, bit and length are for registers'
        elif (self.type == "string") != (self.length > 0):
            return 'type = "string" and length = how many registers it takes go together'
        elif self.type == "string" and self.order in ("CDAB", "DCBA"):
            return "text has no low word: its order is ABCD or BADC"
        elif self.bit is not None and (
            self.kind not in ("u16", "u32", "u64") or self.bit + self.width > 16 * self.count
        ):
            return f"a bit field is of u16, u32 or u64 and lies within; bit + width is {self.bit + self.width} here"
        if self.width != 1 and self.bit is None:
            return "width is for a bit field; give its lowest bit as well"
        if self.address + self.count > ADDRESSES:
            return f"it ends after the last address, {ADDRESSES - 1}"
        if self.writable and (self.table in ("input", "discrete") or self.bit is not None):
            return "writable is for coils and holding registers as a whole (AP 4.3: the others are read-only)"
        return ""

    @property
    def of_bits(self) -> bool:
        return self.table in ("coil", "discrete")

    @property
    def kind(self) -> Type:
        """What stands in its registers."""
        return self.type or "u16"

    @property
    def count(self) -> int:
        """Registers, or bits, that it takes."""
        if self.of_bits:
            return 1
        return self.length if self.kind == "string" else struct.calcsize(_FORMATS[self.kind]) // 2

    @property
    def published(self) -> Literal["bool", "text", "number"]:
        if self.of_bits or (self.bit is not None and self.width == 1):
            return "bool"
        return "text" if self.kind == "string" else "number"

    def settings(self) -> ChannelSettings:
        """How ``fields`` treats it: scale, offset, limits. Raises ValueError where they contradict each other."""
        return self.typed(self.published)

    def output(self, prefix: str) -> Output:
        """What may be set of it, for a writable one."""
        if self.of_bits:
            return Output(prefix + self.name, device_class=self.device_class)
        if self.kind == "string":
            return Output(prefix + self.name, "text", longest=2 * self.length)
        low, high = self.limits()
        whole = self.kind not in ("f32", "f64") and (self.scale, self.offset) == (1.0, 0.0)
        return Output(prefix + self.name, "number", self.unit, low, high, whole, device_class=self.device_class)

    # -- values -----------------------------------------------------------------------------------------------------

    def value(self, words: Sequence[int]) -> Value:
        """What its words (or its one bit) say, before scale and offset. Raises FieldError("encoding")."""
        if self.of_bits:
            return bool(words[0])
        data = self._ordered(words)
        if self.kind == "string":
            try:
                return data.partition(b"\0")[0].decode()
            except UnicodeDecodeError:
                raise FieldError("encoding", f"not text: {data.hex()}") from None
        value: int | float = struct.unpack(f">{_FORMATS[self.kind]}", data)[0]
        if isinstance(value, float):
            return shortest(value) if self.kind == "f32" else value
        if self.bit is None:
            return value
        field = value >> self.bit & (1 << self.width) - 1
        return bool(field) if self.width == 1 else field

    def words(self, value: Value) -> tuple[int, ...]:
        """The words (or the one bit) that set it to value, which is as published. Raises ValueError: what is right."""
        if self.of_bits:
            return (int(bool(value)),)
        if self.kind == "string":
            data = str(value).encode()
            if len(data) > 2 * self.length:
                raise ValueError(f"{len(data)} bytes of text do not fit into {self.length} registers")
            return self._words(data.ljust(2 * self.length, b"\0"))
        if isinstance(value, str | bool) or value is None:
            raise ValueError(f"a number is due, not {value!r}")
        raw: int | float = (value - self.offset) / self.scale if (self.scale, self.offset) != (1.0, 0.0) else value
        if self.kind not in ("f32", "f64"):
            if not math.isfinite(raw):
                raise ValueError(f"{value} is no number that registers hold")
            raw = round(raw)
        try:
            return self._words(struct.pack(f">{_FORMATS[self.kind]}", raw))
        except (struct.error, OverflowError):
            raise ValueError(f"{value:g} makes {raw:g} on the wire, which {self.kind} does not hold") from None

    def limits(self) -> tuple[float | None, float | None]:
        """Least and largest value that may be written: those given, within what its type holds."""
        if self.kind in ("f32", "f64", "string") or self.of_bits:
            return self.low, self.high
        bits = 16 * self.count
        ends = (0, 2**bits - 1) if self.kind[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        low, high = sorted(float(f"{end * self.scale + self.offset:.15g}") for end in ends)
        return max(low, low if self.low is None else self.low), min(high, high if self.high is None else self.high)

    def _ordered(self, words: Sequence[int]) -> bytes:
        """Words in the device's order to bytes in the standard's (AP 4.2: big-endian)."""
        swapped = self.order in ("BADC", "DCBA")
        given = reversed(words) if self.order in ("CDAB", "DCBA") else words
        return b"".join(word.to_bytes(2, "little" if swapped else "big") for word in given)

    def _words(self, data: bytes) -> tuple[int, ...]:
        swapped = self.order in ("BADC", "DCBA")
        words = [int.from_bytes(data[at : at + 2], "little" if swapped else "big") for at in range(0, len(data), 2)]
        return tuple(reversed(words) if self.order in ("CDAB", "DCBA") else words)


def shortest(value: float) -> float:
    """The number with the fewest digits that is the same 32-bit float: 21.4, not 21.399999618530273."""
    if not math.isfinite(value):
        return value
    packed = struct.pack(">f", value)
    for digits in (6, 7, 8):  # 9 always suffice (IEEE 754-2008, table 3.2 and section 5.12.2)
        short = float(f"{value:.{digits}g}")
        try:
            if struct.pack(">f", short) == packed:
                return short
        except OverflowError:  # the largest of all, rounded up
            continue
    return float(f"{value:.9g}")


class Unit(BaseModel):
    """One unit (server, slave) on the bus: ``[[device.unit]]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        "",
        pattern=r"^[A-Za-z0-9_]*$",
        max_length=32,
        description="Stands before the names of its registers, with _ between. Needed where the bus has several units.",
    )
    address: int = Field(ge=0, le=255, description="Its address on the bus: 1 to 247 on a serial line.")
    like: str = Field("", description="Name of a unit above whose registers it has, before its own.")
    gap: int = Field(
        0, ge=0, lt=REGISTERS, description="Registers between two declared ones that are read along to save a question."
    )
    at_once: int = Field(REGISTERS, ge=1, le=REGISTERS, description="Most registers that it gives in one answer.")
    registers: tuple[Register, ...] = Field((), alias="register", max_length=256, description="What is read of it.")


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbours that are read by one question; count: registers or bits."""

    table: Table
    address: int
    count: int
    registers: tuple[Register, ...]

    def __str__(self) -> str:
        last = self.address + self.count - 1
        return f"{self.table} {self.address}" + (f" to {last}" if self.count > 1 else "")


def plan(registers: Iterable[Register], *, gap: int = 0, at_once: int = REGISTERS) -> tuple[Block, ...]:
    """The fewest questions that read all registers, in the order of their addresses, table by table.

    gap: undeclared registers that may be read between two of a block; at_once: most registers in one answer, and
    sixteen times as many bits. No value is ever cut in two: a unit may change it between two questions.
    """
    blocks: list[Block] = []
    for table in _TABLES:
        of_table = sorted((r for r in registers if r.table == table), key=lambda r: (r.address, -r.count))
        most = min(BITS, 16 * at_once) if table in ("coil", "discrete") else at_once
        run: list[Register] = []
        end = 0
        for register in of_table:
            new_end = max(end, register.address + register.count)
            if run and (register.address - end > gap or new_end - run[0].address > most):
                blocks.append(Block(table, run[0].address, end - run[0].address, tuple(run)))
                run, new_end = [], register.address + register.count
            run.append(register)
            end = new_end
        if run:
            blocks.append(Block(table, run[0].address, end - run[0].address, tuple(run)))
    return tuple(blocks)


class UnitPlan:
    """A unit as it is asked and understood."""

    def __init__(self, unit: Unit, registers: Sequence[Register]) -> None:
        """Raises ValueError where two registers would be one channel, or one is larger than an answer may be."""
        self.address = unit.address
        self.prefix = f"{unit.name}_" if unit.name else ""
        self.label = f"{unit.name} (unit {unit.address})" if unit.name else f"unit {unit.address}"
        self.registers = tuple(registers)
        self.online = self.prefix + ONLINE
        self.blocks = plan(registers, gap=unit.gap, at_once=unit.at_once)
        topics = {channel_topic(self.online)}
        for register in registers:
            topic = channel_topic(self.prefix + register.name)
            if topic in topics:
                raise ValueError(f"{self.label} has two channels called {register.name}")
            topics.add(topic)
            if not register.of_bits and register.count > unit.at_once:
                raise ValueError(
                    f"{register.name} takes {register.count} registers, more than at_once = {unit.at_once}"
                )
        self._rules = FieldRules({self.prefix + r.name: r.settings() for r in registers}, default="auto")

    def channels(self) -> list[Channel]:
        return [
            Channel(self.online, device_class="connectivity"),
            *(r.channel(self.prefix + r.name) for r in self.registers),
        ]

    def outputs(self) -> list[Output]:
        return [register.output(self.prefix) for register in self.registers if register.writable]

    def fields(self, block: Block, words: Sequence[int]) -> tuple[dict[str, Value], list[FieldError]]:
        """What the answer to a block says; words: ``block.count`` registers, or bits."""
        raw: dict[str, Value] = {}
        wrong: list[FieldError] = []
        for register in block.registers:
            at = register.address - block.address
            try:
                raw[self.prefix + register.name] = register.value(words[at : at + register.count])
            except FieldError as error:
                wrong.append(FieldError(error.kind, f"{self.prefix}{register.name}: {error.detail}"))
        if not raw:
            return {}, wrong
        good, bad = self._rules.apply_partly(raw)
        return good, wrong + bad

    def ordered(self, fields: Mapping[str, Value]) -> dict[str, Value]:
        """Fields in the order of the configuration, whatever block they came in."""
        names = (self.online, *(self.prefix + register.name for register in self.registers))
        return {name: fields[name] for name in names if name in fields}


def unit_plans(units: Sequence[Unit]) -> list[UnitPlan]:
    """All units of a bus, ``like`` followed. Raises ValueError, which says what is wrong and what would be right."""
    registers: dict[str, tuple[Register, ...]] = {}
    plans = []
    for unit in units:
        if len(units) > 1 and not unit.name:
            raise ValueError(f"unit {unit.address} needs a name, as there are several units on this bus")
        if unit.name in registers:
            raise ValueError(f"two units are called {unit.name}")
        if unit.like and unit.like not in registers:
            raise ValueError(f"{unit.name}: like = {unit.like!r} names no unit above it")
        own = (*registers.get(unit.like, ()), *unit.registers) if unit.like else unit.registers
        if not own:
            raise ValueError(f"{unit.name or unit.address}: no [[device.unit.register]], so there is nothing to read")
        registers[unit.name] = own
        plans.append(UnitPlan(unit, own))
    names = [channel_topic(channel.name) for each in plans for channel in each.channels()]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"two units have a channel {twice}")
    return plans
