"""Numbers and texts at fixed places in a binary frame: what the configuration says of one, and how it is read. Pure."""

from __future__ import annotations

import struct
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from agent.fields import ChannelSettings, FieldError, QuantitySettings, shown
from agent.framing_frames import Order
from agent.model import Value

BinaryType: TypeAlias = Literal[
    "u8", "i8", "u16", "i16", "u24", "i24", "u32", "i32", "u64", "i64", "f32", "f64", "bcd", "text"
]
"""u: unsigned, i: signed (two's complement), f: IEEE 754, each with its bits; bcd: two decimal digits a byte."""


def _hex(text: str) -> str:
    try:
        return bytes.fromhex(text).hex(" ")
    except ValueError:
        raise ValueError('bytes are written as pairs of hex digits, as "aa 55"') from None


Hex: TypeAlias = Annotated[str, AfterValidator(_hex)]
"""Bytes as pairs of hex digits, with or without blanks between."""


class BinaryField(QuantitySettings):
    """What the configuration may say of one field of a frame."""

    at: int = Field(
        description="Offset from the frame's first byte, sync included; negative: from where check and tail begin."
    )
    type: BinaryType = Field(description='u: unsigned, i: signed, f: floating point; "bcd": decimal digits; "text".')
    size: int = Field(0, ge=0, le=256, description="bcd, text: bytes; a text ends earlier at a zero byte.")
    order: Order | None = Field(None, description="Which byte comes first. Default: the device's order.")
    bit: int | None = Field(None, ge=0, le=63, description="Only this bit, as true or false; 0 is the lowest.")
    mask: int | None = Field(None, gt=0, description="Only these bits, shifted down: 0x0f, 0xf0.")
    missing: tuple[int, ...] = Field((), description="Values on the wire that stand for none: published as null.")
    id: Hex | None = Field(None, description="Only in frames with these bytes at id_at. Default: in all.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        whole = self.type[0] in "ui"
        if (self.type in ("bcd", "text")) != (self.size > 0):
            raise ValueError("size is for bcd and text, and they need it")
        if not whole and (self.bit, self.mask) != (None, None):
            raise ValueError("bit and mask are for whole numbers")
        if self.bit is not None and self.mask is not None:
            raise ValueError("say bit or mask, not both")
        if max(self.bit or 0, (self.mask or 1).bit_length() - 1) >= 8 * self.octets:
            raise ValueError(f"{self.type} has only {8 * self.octets} bits")
        if self.missing and self.type in ("f32", "f64", "text"):
            raise ValueError("missing is for whole numbers and bcd")
        self.settings()  # raises what is wrong with scale and limits
        return self

    @property
    def octets(self) -> int:
        """How many of the frame it takes."""
        return self.size or int(self.type[1:]) // 8

    def settings(self) -> ChannelSettings:
        """What becomes of the value that ``read`` gives."""
        return self.typed("bool" if self.bit is not None else "text" if self.type == "text" else None)

    def read(self, data: bytes, order: Order) -> Value:
        """What stands there, before scale and offset; data: the frame without its check and tail.

        Raises FieldError: "syntax", "number" or "encoding".
        """
        at = self.at if self.at >= 0 else len(data) + self.at
        raw = data[at : at + self.octets] if at >= 0 else b""
        if len(raw) < self.octets:
            raise FieldError("syntax", f"the frame has only {len(data)} bytes before check and tail")
        order = self.order or order
        match self.type:
            case "text":
                return _text(raw)
            case "f32" | "f64":
                return _float(raw if order == "big" else raw[::-1])
            case "bcd":
                number = _decimal(raw if order == "big" else raw[::-1])
            case _:
                number = int.from_bytes(raw, order, signed=self.type[0] == "i")
        if number in self.missing:
            return None
        if self.bit is not None:
            return bool(number >> self.bit & 1)
        if self.mask is not None:
            return (number & self.mask) // (self.mask & -self.mask)
        return number


def _text(raw: bytes) -> str:
    text = raw.partition(b"\0")[0]
    try:
        return text.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise FieldError("encoding", f"byte 0x{text[error.start]:02x} at {error.start} is not UTF-8") from None


def _decimal(raw: bytes) -> int:
    digits = raw.hex()
    if not digits.isdecimal():
        raise FieldError("number", f"not decimal digits: {shown(digits)}")
    return int(digits)


def _float(raw: bytes) -> float:
    if len(raw) == 8:
        return float(struct.unpack(">d", raw)[0])
    value = float(struct.unpack(">f", raw)[0])
    for digits in range(6, 9):  # the shortest that is the same 32 bits: 21.5, 0.1, not 0.10000000149011612
        short = float(f"{value:.{digits}g}")
        try:
            if struct.pack(">f", short) == raw:
                return short
        except OverflowError:  # rounded up past the largest
            continue
    return float(f"{value:.9g}")  # nine digits are enough for any (IEEE 754, 5.12.2)
