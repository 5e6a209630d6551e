"""The words of the agent: what a driver gives (Channel, Sample, Fault) and what becomes of it (Reading).

``Sample`` and ``Reading`` stand on the path of every reading, so they are plain slotted classes: a frozen dataclass
costs three times as much to make. Nobody changes one after it was made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

Value: TypeAlias = "bool | int | float | str | None"
"""What a field may hold. Numbers are finite: NaN and the infinities have no JSON form (RFC 8259, section 6)."""

FAULT_KINDS = {
    "encoding": "bytes that are not text in the configured encoding",
    "too_long": "more bytes without a line ending than the longest line allows",
    "syntax": "a frame that is not of the configured format",
    "columns": "a wrong number of columns",
    "number": "not a number where one is due, or NaN or infinity",
    "duplicate_key": "the same key twice in one frame",
    "unmatched": "a line that the regular expression does not match",
    "checksum": "a checksum that does not fit",
    "range": "a value outside low..high of its channel",
    "compute": "a computed channel has no value: a division by zero, a text where a number is due",
    "topic": "two channels of one device whose topics would be the same",
    "cut": "a frame that ended early, because the device went away",
    "timeout": "no answer within the deadline",
    "unreadable": "a part of the host that could not be read; the detail says which and why",
    "parser": "the parser itself failed: a defect in the driver",
}
"""The kinds of Fault that the agent knows, with what each means; a driver may add its own."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One quantity of a device.

    unit: as shown to people ("°C", "hPa"); low, high: limits of what is plausible, in that unit, both inclusive;
    device_class, state_class: Home Assistant's words for it, or None.
    """

    name: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    device_class: str | None = None
    state_class: str | None = None


@dataclass(slots=True)
class Sample:
    """What one frame of a device says: values by channel name, in the order in which the device gave them.

    mono_ns: when it was taken, in nanoseconds of CLOCK_MONOTONIC, where the source itself knows (a kernel's GPIO
    event); None: when it was read.
    """

    fields: dict[str, Value]
    mono_ns: int | None = None


@dataclass(slots=True)
class Fault:
    """Something that came over the wire and is not a reading. It is data, never an exception.

    kind: one of FAULT_KINDS, or the driver's own word, ``[a-z_]+``; detail: one line for a person;
    raw: the offending bytes, of which the status shows the first 64.
    """

    kind: str
    detail: str = ""
    raw: bytes = b""


@dataclass(slots=True)
class Reading:
    """A Sample that the supervisor has stamped, on its way to the broker.

    (agent, device, seq) names it. ``mono_ns`` is CLOCK_MONOTONIC when it was taken; the wall time is settled when it is
    sent. ``body`` is the JSON object of its fields, encoded once (RFC 8259, UTF-8).
    """

    device: str
    seq: int
    mono_ns: int
    body: bytes
    resumed: bool = False
    """The first one after an unclean end: numbers before it may never have been given."""
    wall_ns: int | None = None
    """Taken in an earlier boot, whose monotonic clock means nothing any more: its wall time, settled."""
    unsynced: bool = False
    """``wall_ns`` is by a clock that was not believed in all of that boot."""
    row: int = 0
    """Its place in the outbox: grows in the order of arrival. 0: not in one yet."""
    gone: bool = False
    """The outbox has forgotten it: acknowledged, or dropped and counted."""
