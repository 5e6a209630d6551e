"""Binary frames as settings and as a parser: what drivers share whose source gives frames by configuration.

A driver's configuration takes ``FrameFormat`` in, and its ``parser()`` gives a ``FrameParser`` of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agent.driver import Channel, Fault, Parser, Sample
from agent.fields import FieldError, FieldRules, shown
from agent.fields_binary import BinaryField, Hex
from agent.framing_check import CheckName, check_named
from agent.framing_frames import FrameFramer, Framer, FrameReader, Layout, Length, Order
from agent.framing_packets import CODINGS, PacketFramer
from agent.model import Value
from agent.quantity import Size


class FrameFormat(BaseModel):
    """What the configuration may say of frames."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    framing: Literal["sync", "slip", "cobs"] = Field(
        "sync", description="sync: found by sync bytes, size and check; slip, cobs: each packet is a frame."
    )
    sync: Hex = Field("", description="First bytes of every frame, in hex.")
    tail: Hex = Field("", description="Last bytes of every frame, in hex.")
    size: int | None = Field(None, ge=1, le=4096, description="Bytes of a frame, if all are of one size.")
    length_at: int | None = Field(None, ge=0, le=255, description="Offset of the field that tells the size.")
    length_type: Literal["u8", "u16", "u24", "u32"] = Field("u8", description="Type of that field.")
    length_add: int = Field(
        0, ge=-4096, le=4096, description="Bytes of a frame that the field does not count: sync, itself, check ..."
    )
    order: Order = Field("big", description="Which byte of a number comes first: big: the highest, little: the lowest.")
    check: CheckName | None = Field(
        None, description="Name of the checksum or CRC: sum8, xor8, crc-16/modbus, crc-32 ..., as in the text above."
    )
    check_at: int | None = Field(None, description="Its offset; negative: from the end. Default: just before the tail.")
    check_begin: int = Field(0, description="Offset of the first byte that it covers.")
    check_end: int | None = Field(None, description="Offset behind the last one. Default: where the check stands.")
    check_order: Order | None = Field(
        None, description="Its order. Default: little for a reflected CRC or Fletcher's sum, else as order."
    )
    longest: Size = Field(256, ge=4, le=4096, description="Most bytes of a frame whose size is told or open.")
    id_at: int | None = Field(None, ge=0, description="Offset of the bytes that tell the kind of a frame.")
    fields: dict[str, BinaryField] = Field(
        min_length=1, description="What is read of a frame, by the name that it gets; published in this order."
    )
    partial: bool = Field(False, description="Publish the good values of a frame in which single ones are bad.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for wrong in self._wrong():
            raise ValueError(wrong)
        FieldRules({name: field.settings() for name, field in self.fields.items()}, default="auto")
        return self

    def _wrong(self) -> Iterator[str]:
        if self.size is not None and self.length_at is not None:
            yield "say size or length_at, not both"
        if self.framing == "sync" and self.size is None and self.length_at is None:
            yield "how long is a frame? Say size, or length_at and length_add"
        if self.framing == "sync" and not self.sync and self.check is None:
            yield "nothing tells where a frame begins: say sync or check, best both"
        if self.check is None and (self.check_at, self.check_begin, self.check_end) != (None, 0, None):
            yield "check_at, check_begin and check_end are for a check"
        layout = self.layout()
        if self.size is not None and self.size < layout.shortest:
            yield f"size = {self.size}: sync, check and tail alone need {layout.shortest}"
        if self.size is not None and (wrong := layout.misplaced(self.size)):
            yield wrong
        for name, field in self.fields.items():
            if field.id is not None and self.id_at is None:
                yield f"{shown(name)} has an id: say id_at, where it stands in a frame"
            most = layout.data_end(layout.most)
            if field.at + field.octets > (most if field.at >= 0 else 0) or field.at < -most:
                yield f"{shown(name)}: {field.type} at {field.at} lies outside of {most} bytes before check and tail"
        if self.id_at is not None and all(field.id is None for field in self.fields.values()):
            yield "id_at: no field has an id"

    def layout(self) -> Layout:
        """What a frame looks like."""
        size: int | Length | None = self.size
        if self.length_at is not None:
            size = Length(self.length_at, int(self.length_type[1:]) // 8, self.order, self.length_add)
        check = check_named(self.check) if self.check else None
        return Layout(
            size,
            sync=bytes.fromhex(self.sync),
            tail=bytes.fromhex(self.tail),
            check=check,
            check_from=self.check_begin,
            check_to=self.check_end,
            check_at=self.check_at,
            check_order=self.check_order or ("little" if check and check.low_first else self.order),
            longest=self.longest,
        )

    def framer(self) -> Framer:
        """What finds the frames in a stream."""
        return FrameFramer(self.layout()) if self.framing == "sync" else PacketFramer(self.framing, self.longest)

    def packed(self, payload: bytes) -> bytes:
        """What goes over the wire for a payload to the device."""
        return payload if self.framing == "sync" else CODINGS[self.framing].encode(payload)

    def frame_channels(self) -> tuple[Channel, ...]:
        """The channels: all are known."""
        return tuple(field.channel(name) for name, field in self.fields.items())


class FrameParser(FrameReader, Parser):
    """Frames to samples: one Sample or one Fault a frame, nothing for one of a kind that no field is of."""

    def __init__(self, config: FrameFormat, *, answer: bool = False) -> None:
        """answer: it reads the answer to a question."""
        super().__init__(config.framer(), self._frame, answer=answer)
        self._config = config
        self._layout = config.layout()
        self._rules = FieldRules({name: field.settings() for name, field in config.fields.items()}, default="auto")

    def _frame(self, frame: bytes) -> list[Sample | Fault]:
        config = self._config
        if config.framing != "sync" and (wrong := self._layout.wrong(frame)):
            return [wrong]
        data = frame[: self._layout.data_end(len(frame))]
        raw: dict[str, Value] = {}
        bad: list[FieldError] = []
        for name, field in config.fields.items():
            if field.id is not None and not frame.startswith(bytes.fromhex(field.id), config.id_at):
                continue
            try:
                raw[name] = field.read(data, config.order)
            except FieldError as error:
                bad.append(FieldError(error.kind, f"{name}: {error.detail}"))
        good: dict[str, Value] = {}
        if raw:
            good, more = self._rules.apply_partly(raw)
            bad += more
        if bad and not config.partial:
            return [Fault(bad[0].kind, bad[0].detail, frame)]
        faults = [Fault(error.kind, error.detail, frame) for error in bad]
        return [Sample(good), *faults] if good else [*faults]
