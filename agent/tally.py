"""Judges a stream of readings by their numbers alone: what is missing, came twice, or came out of order.

Whoever listens to a broker can judge the agent by it: `outstation verify`, the demo, tests. It knows nothing of how
readings are sent, keeps a few pairs of numbers for each device, and may go on for months.

``seq`` grows by one with each reading of a device and is never given twice, so a gap is a loss and a repeat is a
duplicate, with these exceptions:

- A gap before a reading marked ``resumed`` proves nothing: after an unclean end the agent goes on in another range.
- What was sent before we listened, or while we did not, proves nothing either: ``unheard``.
- Under ``replay = "live_first"`` a backlog comes beside live readings, marked ``backfill``: a number is lost only while
  it is missing, and order is judged in each of the two streams.
"""

from __future__ import annotations

import json
import re
from array import array
from dataclasses import dataclass, field
from typing import Any

import orjson

from agent.codec_template import Template
from agent.ranges import Ranges
from agent.tally_formats import from_cbor, from_influx, from_senml, is_senml

PAIRS = 10_000
"""Most ranges of missing numbers that are remembered for a device: 1.4 MB at worst. Past them the lowest is settled."""

REMEMBERED = 4096
"""Latest numbers of a device whose content is remembered, to tell a repeat from another reading with an old number."""

LARGEST_SEQ = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Arrival:
    """One reading as it came from the broker, by its payload."""

    seq: int
    fields: dict[str, Any]
    ts: str = ""
    resumed: bool = False
    unsynced: bool = False
    backfill: bool = False


def parse(payload: bytes) -> list[Arrival]:
    """The readings in one message, in whichever form of ``mqtt.format`` that carries ``seq``.

    Raises ValueError, which says what is not right.
    """
    first = payload[:1]
    said: Any
    if b"\x80" <= first <= b"\xbf":  # an array or a map (RFC 8949, section 3.1); no character begins so in UTF-8
        said = from_cbor(payload)
    elif b" " in payload and b"seq=" in payload and first not in b'{["':
        said = from_influx(payload)
    else:
        try:
            said = orjson.loads(payload)
        except orjson.JSONDecodeError as error:
            raise ValueError(f"not JSON ({error})") from None
        if is_senml(said):
            said = from_senml(said)
    return [_arrival(item) for item in (said if isinstance(said, list) else [said])]


def _arrival(item: Any) -> Arrival:
    if not isinstance(item, dict):
        raise ValueError("neither an object nor an array of objects")
    seq, fields, ts = item.get("seq"), item.get("fields"), item.get("ts")
    if type(seq) is not int or not 1 <= seq <= LARGEST_SEQ:
        raise ValueError('no "seq", a whole number from 1 on')
    if not isinstance(fields, dict):
        raise ValueError('no "fields", an object')
    for name, value in fields.items():
        if isinstance(value, dict | list):
            raise ValueError(f"{_shown(name)} is neither a number nor text, true, false or null")
    if not isinstance(ts, str):
        raise ValueError('no "ts", a time')
    unsynced = item.get("clock") == "unsynced"
    return Arrival(seq, fields, ts, item.get("resumed") is True, unsynced, item.get("backfill") is True)


class _Contents:
    """A hash of what was in each of the latest numbers, in a ring of fixed size."""

    __slots__ = ("_hashes", "_seqs", "_slots")

    def __init__(self, slots: int = REMEMBERED) -> None:
        self._slots = slots
        self._seqs = array("q")  # grows to REMEMBERED with the first numbers: most devices of a test send few
        self._hashes = array("q")

    def swap(self, seq: int, content: int) -> int | None:
        """Remember it; what was remembered for this number before."""
        slot = seq % self._slots
        if slot >= len(self._seqs):
            more = min(self._slots, max(slot + 1, 2 * len(self._seqs))) - len(self._seqs)
            self._seqs.frombytes(bytes(8 * more))
            self._hashes.frombytes(bytes(8 * more))
        old = self._hashes[slot] if self._seqs[slot] == seq else None
        self._seqs[slot] = seq
        self._hashes[slot] = content
        return old


@dataclass(slots=True)
class DeviceTally:
    """One device of one agent, as seen from the broker."""

    received: int = 0
    """Different readings: first arrivals."""
    duplicates: int = 0
    redelivered: int = 0
    """Repeats that the broker itself marked as such (DUP): between broker and us, and no doing of the agent."""
    disorder: int = 0
    """First arrivals with a number below that of an earlier one in the same stream."""
    reused: int = 0
    """Other readings under a number that was taken (looked for among the latest REMEMBERED)."""
    restarts: int = 0
    """How often the numbers began at 1 again: the outbox has gone, and with it what names a reading."""
    resumptions: int = 0
    unsynced: int = 0
    backfilled: int = 0
    first: int | None = None
    last: int | None = None
    """Lowest and highest number seen, since the last restart."""
    fields: dict[str, Any] = field(default_factory=dict)
    ts: str = ""
    at: float = 0.0
    """The reading with the highest number: its fields, its time as sent, and when it came (the caller's clock)."""
    missing: Ranges = field(default_factory=Ranges)
    """Numbers between the first and the last that have not arrived, and have no excuse."""
    apart: Ranges = field(default_factory=Ranges)
    """Numbers before a resumed reading that have not arrived: they prove nothing."""
    unheard: Ranges = field(default_factory=Ranges)
    """Numbers that may have come when nobody listened: they prove nothing."""
    settled: int = 0
    """Missing numbers that are counted and no longer remembered."""
    _contents: _Contents = field(default_factory=_Contents)
    _pairs: int = field(default_factory=lambda: PAIRS)
    _heard_live: bool = False
    _heard_backfill: bool = False
    _order: list[int] = field(default_factory=lambda: [0, 0])

    @property
    def lost(self) -> int:
        """How many are missing now."""
        return self.missing.count + self.settled

    @property
    def holds(self) -> bool:
        """Whether the promise is kept as far as it was seen: duplicates are allowed, all else is not."""
        return not (self.lost or self.disorder or self.reused or self.restarts)

    def count(self, arrival: Arrival, *, at: float = 0.0, dup: bool = False) -> None:
        """One reading arrived. at: seconds of a clock of the caller's; dup: the broker marked it as repeated."""
        seq = arrival.seq
        content = hash(orjson.dumps(arrival.fields))
        before = self._contents.swap(seq, content)
        if self.first is None or self.last is None:
            self.first = self.last = seq
        elif seq > self.last:
            self._gap(arrival, self.last + 1, seq - 1)
            self.last = seq
        elif self._fill(seq):
            pass
        elif seq == 1 and before != content and not (arrival.backfill or dup):
            self._restart()  # sent for the first time, so it is no repeat
        elif seq < self.first:
            self.unheard.add(seq + 1, self.first - 1)
            self.first = seq
        else:
            if before is not None and before != content:
                self.reused += 1
            elif dup:
                self.redelivered += 1
            else:
                self.duplicates += 1
            return
        self._first_arrival(arrival, at)

    def interrupt(self) -> None:
        """Nobody listened for a while: what is missing may have come meanwhile, and so may what comes next."""
        for first, last in self.missing.take_all():
            self.unheard.add(first, last)
        self._heard_live = self._heard_backfill = False

    # ---------------------------------------------------------------------------------------------------------------

    def _first_arrival(self, arrival: Arrival, at: float) -> None:
        seq = arrival.seq
        self.received += 1
        self.unsynced += arrival.unsynced
        self.backfilled += arrival.backfill
        if arrival.resumed:
            self.resumptions += 1
            if run := self.missing.find(seq - 1):
                self.missing.discard(*run)
                self.apart.add(*run)
        if seq < self._order[arrival.backfill]:
            self.disorder += 1
        else:
            self._order[arrival.backfill] = seq
        if seq == self.last:
            self.fields, self.ts, self.at = arrival.fields, arrival.ts, at
        if arrival.backfill:
            self._heard_backfill = True
        else:
            self._heard_live = True
        self._bound()

    def _gap(self, arrival: Arrival, first: int, last: int) -> None:
        """These have not come, and a later one has. Whether they must come yet, or have come unheard?

        In a stream that we have heard since we listen, they must. The first live reading may stand at the end of many
        that were sent before; a backlog that we hear from its middle goes on without a gap.
        """
        heard = self._heard_live or (arrival.backfill and self._heard_backfill)
        (self.missing if heard else self.unheard).add(first, last)

    def _fill(self, seq: int) -> bool:
        """Whether it was missing; it is not any more."""
        for ranges in (self.missing, self.unheard):
            if seq in ranges:
                ranges.discard(seq, seq)
                return True
        run = self.apart.find(seq)
        if run is None:
            return False
        # The process that ended had got as far as this one, so what it gave before is not part of the reserved range.
        self.apart.discard(run[0], seq)
        self.missing.add(run[0], seq - 1)
        return True

    def _restart(self) -> None:
        self.restarts += 1
        self.settled += self.missing.count
        for ranges in (self.missing, self.apart, self.unheard):
            ranges.take_all()
        self.first = self.last = 1
        self._order = [0, 0]

    def _bound(self) -> None:
        """Settle what would be too much to remember: lost if it was missing, else forgotten.

        Should it come after all, it counts as a duplicate.
        """
        while self.missing.pairs > self._pairs:
            first, last = self.missing.pop_first()
            self.settled += last - first + 1
        for ranges in (self.apart, self.unheard):
            while ranges.pairs > self._pairs:
                ranges.pop_first()


_NAME = re.compile(r"[A-Za-z0-9_-]+")

DEVICES = 10_000
"""Most devices that are told apart: whoever may publish at the broker could make up as many as he likes."""


class Tally:
    """All readings below ``<base>/<agent>/<device>/telemetry``, or as a template has it. Keys are (agent, device)."""

    def __init__(
        self,
        base: str = "outstation",
        *,
        template: Template | None = None,
        agent: str = "",
        remembered: int = REMEMBERED,
        pairs: int | None = None,
    ) -> None:
        """template: where readings go instead, and whose they are if it does not say.

        remembered, pairs: of each device, less than a proof needs (REMEMBERED, PAIRS) for one that only shows.
        """
        self._template = template
        self._agent = agent
        self._remembered = remembered
        self._pairs = PAIRS if pairs is None else pairs
        self.devices: dict[tuple[str, str], DeviceTally] = {}
        self.garbage = 0
        """Messages that are no readings."""
        self.first_garbage = ""
        self.retained = 0
        """Readings that the broker had kept for new subscribers, as no agent asks it to: passed over."""
        self._prefix = f"{base}/"

    def add(self, topic: str, payload: bytes, *, at: float = 0.0, dup: bool = False, retained: bool = False) -> bool:
        """Count one message. False: it is not telemetry as an agent sends it, and is counted as what it is."""
        if retained:
            self.retained += 1
            return False
        try:
            key = self._key(topic)
            arrivals = parse(payload)
        except ValueError as error:
            self.garbage += 1
            self.first_garbage = self.first_garbage or f"{_shown(topic)} {payload[:100]!r}: {error}"
            return False
        device = self.devices.get(key)
        if device is None:
            device = self.devices[key] = DeviceTally(_contents=_Contents(self._remembered), _pairs=self._pairs)
        for arrival in arrivals:
            device.count(arrival, at=at, dup=dup)
        return True

    def interrupt(self) -> None:
        """Messages may have passed us by: gaps across this moment prove nothing."""
        for device in self.devices.values():
            device.interrupt()

    @property
    def received(self) -> int:
        return sum(device.received for device in self.devices.values())

    @property
    def lost(self) -> int:
        return sum(device.lost for device in self.devices.values())

    @property
    def holds(self) -> bool:
        """Whether nothing is lost and nothing out of order, as far as it was seen."""
        return all(device.holds for device in self.devices.values())

    def _key(self, topic: str) -> tuple[str, str]:
        if self._template is not None:
            if (names := self._template.read(topic)) is None:
                raise ValueError(f"not a topic as {self._template.text}")
            key = (names.get("agent", self._agent), names["device"])
        else:
            levels = topic.removeprefix(self._prefix).split("/")
            if not topic.startswith(self._prefix) or len(levels) != 3 or levels[2] != "telemetry":
                raise ValueError("not a topic of telemetry")
            key = (levels[0], levels[1])
        if key not in self.devices and not all(map(_NAME.fullmatch, key)):
            raise ValueError("agents and devices have names of A-Z a-z 0-9 _ -")
        if key not in self.devices and len(self.devices) >= DEVICES:
            raise ValueError(f"more than {DEVICES} devices")
        return key


def compact(fields: dict[str, Any]) -> str:
    """Fields for people: ``temperature 21.5, humidity 44.1``. Safe to write to a terminal."""
    return ", ".join(
        f"{_shown(name)} {_shown(value) if isinstance(value, str) else json.dumps(value)}"
        for name, value in fields.items()
    )


def _shown(text: str) -> str:
    """Text from anywhere, without what would move a terminal's cursor or worse."""
    return text if text.isprintable() else json.dumps(text)
