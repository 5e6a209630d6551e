"""Binary frames in a stream of bytes: found by sync bytes, length and check, and found again after noise. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

from agent.framing import SAMPLE
from agent.framing_check import Check
from agent.model import Fault, Sample

Order: TypeAlias = Literal["big", "little"]
"""Which byte of a number comes first: big: the highest, little: the lowest."""

NEVER_IN_STEP: Final = 64
"""Bytes that are no frame and go into one Fault: as many as it shows; as many as the longest frame, if that is more."""


@dataclass(frozen=True, slots=True)
class Length:
    """The field of a frame that tells its size: all its bytes are ``value + add``, sync and check included.

    at: offset of the field from the frame's first byte; size: its bytes.
    """

    at: int
    size: int = 1
    order: Order = "big"
    add: int = 0


@dataclass(frozen=True, slots=True)
class Layout:
    """What a frame of one protocol looks like. Offsets are from its first byte, negative ones from its end.

    sync: its first bytes; tail: its last; size: all its bytes, or the field that tells, or None: a packet's size, which
    tells itself; longest: most that ``size`` may tell; check: computed over the bytes ``check_from`` to ``check_to``
    (without the latter; None: up to the check itself), it stands at ``check_at`` (None: right before the tail).
    """

    size: int | Length | None
    sync: bytes = b""
    tail: bytes = b""
    check: Check | None = None
    check_from: int = 0
    check_to: int | None = None
    check_at: int | None = None
    check_order: Order = "big"
    longest: int = 256

    @property
    def head(self) -> int:
        """So many bytes have to be there before the frame's size is known."""
        told = self.size.at + self.size.size if isinstance(self.size, Length) else 0
        return max(len(self.sync), told, 1)

    @property
    def shortest(self) -> int:
        """Fewer bytes cannot be a frame: sync or length, check and tail have no room."""
        return self.head + len(self.tail) + (self.check.size if self.check and self.check_at is None else 0)

    @property
    def most(self) -> int:
        """More bytes are no frame."""
        return self.size if isinstance(self.size, int) else self.longest

    def total(self, buffer: bytes | bytearray, at: int) -> int:
        """The size that the frame at ``at`` tells, whose head is there; not yet judged."""
        size = self.size
        if isinstance(size, int):
            return size
        if size is None:
            return len(buffer) - at
        begin = at + size.at
        return int.from_bytes(buffer[begin : begin + size.size], size.order) + size.add

    def wrong(self, frame: bytes) -> Fault | None:
        """What is wrong with these bytes, as a whole frame; None if nothing is."""
        if not frame.startswith(self.sync):
            return Fault("syntax", f"does not begin with {self.sync.hex(' ')}", frame)
        if len(frame) < self.shortest:
            return Fault("syntax", f"{len(frame)} bytes, where {self.shortest} are the least", frame)
        if (due := self.total(frame, 0)) != len(frame):
            return Fault("syntax", f"{len(frame)} bytes, where {due} are due", frame)
        return self._wrong_end(frame)

    def data_end(self, total: int) -> int:
        """Offset behind the last byte of a frame that is neither check, where that stands at the end, nor tail."""
        return max(total - len(self.tail) - (self.check.size if self.check and self.check_at is None else 0), 0)

    def misplaced(self, total: int) -> str | None:
        """Why a frame of so many bytes has no room for the check, or None."""
        if self.check is None or 0 <= self._place(total) <= total - self.check.size:
            return None
        return f"no room for {self.check.name} in {total} bytes"

    def _place(self, total: int) -> int:
        """Offset of the check."""
        assert self.check is not None
        if self.check_at is None:
            return total - len(self.tail) - self.check.size
        return _offset(self.check_at, total)

    def _wrong_end(self, frame: bytes) -> Fault | None:
        if not frame.endswith(self.tail):
            return Fault("syntax", f"does not end in {self.tail.hex(' ')}", frame)
        check = self.check
        if check is None:
            return None
        end = len(frame)
        at = self._place(end)
        if misplaced := self.misplaced(end):
            return Fault("syntax", misplaced, frame)
        stands = frame[at : at + check.size]
        to = at if self.check_to is None else _offset(self.check_to, end)
        due = check.compute(frame[_offset(self.check_from, end) : max(to, 0)])
        if int.from_bytes(stands, self.check_order) == due:
            return None
        wanted = due.to_bytes(check.size, self.check_order).hex(" ")
        return Fault("checksum", f"{check.name} is {stands.hex(' ')}, where {wanted} is due", frame)


def _offset(offset: int, end: int) -> int:
    return offset if offset >= 0 else end + offset


class FrameFramer:
    """Splits a stream into frames, and gives what lies between them as Faults.

    What looks like a frame and is none (a check that does not fit, a size out of bounds) is left again by one byte: the
    next frame may have begun within it. So a good frame is never lost to noise before it; a false sync that tells a
    large size delays it until so many bytes have come, ``longest`` at most. The same bytes give the same items however
    they are cut.

    Bytes that are no frame are gathered into one Fault: up to the next good frame, at most ``longest`` or
    NEVER_IN_STEP. Its kind is that of the first thing that looked like a frame, else "syntax".

    Cost: a check over each thing that looks like a frame, so noise of nothing but sync bytes costs ``longest`` steps
    of the check for each byte: 256 bytes of a CRC are 17 µs.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._most = max(NEVER_IN_STEP, layout.most)
        self._buffer = bytearray()
        self._skipped = 0  # bytes since the last frame or fault; of them:
        self._sample = bytearray()
        self._why: Fault | None = None

    def feed(self, data: bytes) -> list[bytes | Fault]:
        """The frames that data completes, in order, with a Fault for what is none."""
        self._buffer += data
        return self._take(ended=False)

    def end(self) -> list[bytes | Fault]:
        """The stream ends: a Fault for what is left, "cut" if it began as a frame. Afterwards the framer is as new.

        A false sync may have held back whole frames behind it: these come out too.
        """
        items = self._take(ended=True)
        self._flush(items)
        return items

    def _take(self, *, ended: bool) -> list[bytes | Fault]:
        items: list[bytes | Fault] = []
        buffer, layout = self._buffer, self._layout
        at, end = 0, len(self._buffer)
        while True:
            begin = self._candidate(at)
            if begin > at:
                self._skip(at, begin, items)
                at = begin
            if at == end:
                break
            total = layout.total(buffer, at) if end - at >= layout.head else None
            if total is not None and not layout.shortest <= total <= layout.most:
                why = Fault("syntax", f"tells {total} bytes, where {layout.shortest} to {layout.most} are due")
            elif total is None or end - at < total:
                if not ended:
                    break
                why = Fault("cut", "the stream ended within a frame")
            else:
                frame = bytes(buffer[at : at + total])
                wrong = layout._wrong_end(frame)
                if wrong is None:
                    self._flush(items)
                    items.append(frame)
                    at += total
                    continue
                why = wrong
            self._why = self._why or why
            self._skip(at, at + 1, items)
            at += 1
        del buffer[:at]
        return items

    def _candidate(self, at: int) -> int:
        """Where the next frame may begin, at ``at`` or later; the buffer's end if nowhere."""
        buffer, sync = self._buffer, self._layout.sync
        if not sync:
            return at
        begin = buffer.find(sync, at)
        if begin >= 0:
            return begin
        end = len(buffer)
        for known in range(min(len(sync) - 1, end - at), 0, -1):
            if buffer.endswith(sync[:known]):
                return end - known
        return end

    def _skip(self, at: int, to: int, items: list[bytes | Fault]) -> None:
        """These bytes are no frame's beginning."""
        while at < to:
            step = min(to - at, self._most - self._skipped)
            self._sample += self._buffer[at : at + min(step, SAMPLE - len(self._sample))]
            self._skipped += step
            at += step
            if self._skipped == self._most:
                self._flush(items)

    def _flush(self, items: list[bytes | Fault]) -> None:
        """One Fault for what was skipped, if anything was."""
        if self._skipped:
            why = self._why or Fault("syntax", "bytes that are no frame")
            items.append(Fault(why.kind, why.detail, bytes(self._sample)))
        self._skipped = 0
        self._sample.clear()
        self._why = None


HELD: Final = 16
"""Faults after which an answer is given up: a kilobyte of noise."""


class Framer(Protocol):
    """FrameFramer, PacketFramer: bytes to frames, with a Fault for what is none."""

    def feed(self, data: bytes) -> list[bytes | Fault]: ...

    def end(self) -> Sequence[bytes | Fault]: ...


class FrameReader:
    """A stream of frames to samples and faults: the parser of a driver whose device sends binary frames.

    As the parser of an answer (``PollDriver`` takes the first that ``feed`` gives for it) it keeps back the faults of
    what is no frame until a frame has said something: noise, or an echo of the question, does not end the waiting. HELD
    faults do.
    """

    def __init__(
        self, framer: Framer, read: Callable[[bytes], Iterable[Sample | Fault]], *, answer: bool = False
    ) -> None:
        """read: what one good frame says; nothing, if that is no reading (the answer to a command, say)."""
        self._framer = framer
        self._read = read
        self._answer = answer
        self._held: list[Sample | Fault] = []

    def feed(self, data: bytes) -> list[Sample | Fault]:
        """What data completes."""
        items, said = self._items(self._framer.feed(data))
        if self._answer and not said and len(items) < HELD:
            self._held = items
            return []
        return items

    def end(self) -> list[Sample | Fault]:
        """The stream ends: what is left."""
        return self._items(self._framer.end())[0]

    def _items(self, frames: Iterable[bytes | Fault]) -> tuple[list[Sample | Fault], bool]:
        """Those held before, and of these frames; and whether one of the frames has said something."""
        items, self._held = self._held, []
        said = False
        for frame in frames:
            if isinstance(frame, Fault):
                items.append(frame)
                continue
            before = len(items)
            items += self._read(frame)
            said = said or len(items) > before
        return items, said
