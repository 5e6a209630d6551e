"""What `outstation watch` has seen of a broker's outstations: what is shown first, and each row as text and JSON. Pure.

Its bounds: agents and devices are as many as ``agent.tally`` tells apart, and of a reading as much is kept as can be
shown, so that whoever publishes at the broker cannot fill the watcher's memory.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import nsmallest
from itertools import chain
from typing import Any

import orjson

from agent.cli_verify_seen import Connection, Key, Seen
from agent.codec_template import Template
from agent.tally import DEVICES, DeviceTally, Tally, compact

_NAME = re.compile(r"[A-Za-z0-9_-]+")

SMOOTH = 30.0
"""Seconds over which a rate is smoothed: devices that report every half minute show a steady one."""
LONGEST = 4096
"""Bytes of a reading's fields that are kept, as JSON: thirty lines of a terminal."""
REMEMBERED = 64
PAIRS = 100
"""Of a device's numbers: enough to tell a repeat from a gap; what is forgotten of a gap stays counted."""
CHANNELS = 100
"""Of a device that sends bare values: more are counted and not shown."""
VALUE_BYTES = 200
"""Of a bare value that are kept."""
STATUS_BYTES = 1 << 20
"""Largest status report that is read: one of 1,000 devices has 300 KB."""


@dataclass(frozen=True, slots=True)
class About:
    """What an agent's last status report said of it. uptime in seconds; waiting: readings in its outbox."""

    version: str
    uptime: float
    waiting: int


@dataclass(slots=True)
class Values:
    """A device that sends bare values, each channel to a topic of its own: without a number, so nothing can be missing.

    received: values; at: when the last one came, seconds of the clock by which readings arrive.
    """

    received: int = 0
    at: float = 0.0
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Rate:
    """Readings a second, smoothed; until SMOOTH seconds have gone the mean since the first look."""

    began: float
    at: float
    received: int
    value: float = 0.0

    def look(self, now: float, received: int) -> None:
        if (step := now - self.at) <= 0:
            return
        new = (received - self.received) / step
        share = max(1 - math.exp(-step / SMOOTH), step / (now - self.began))
        self.value += share * (new - self.value)
        self.at, self.received = now, received


@dataclass(frozen=True, slots=True)
class Row:
    """One device, or (device "") an agent of which no device is known. age: seconds since the last reading, or None."""

    agent: str
    device: str
    state: str
    seq: int | None = None
    received: int = 0
    missing: int = 0
    rate: float = 0.0
    age: float | None = None
    ts: str = ""
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.agent}/{self.device}" if self.device else self.agent


@dataclass(slots=True)
class Sight(Seen):
    """All that one run has seen."""

    about: dict[str, About] = field(default_factory=dict)
    rates: dict[Key, Rate] = field(default_factory=dict)
    values: dict[Key, Values] = field(default_factory=dict)

    def state(self, agent: str, device: str, said: bytes) -> None:
        """One more word of an agent; none at all is how a retained one is taken back."""
        if said:
            Seen.state(self, agent, device, said)
        else:
            self.states.pop((agent, device), None)

    def status_report(self, agent: str, payload: bytes) -> None:
        """What an agent reports of itself; what is no such report is passed over."""
        if len(payload) > STATUS_BYTES or (agent not in self.about and len(self.about) >= DEVICES):
            return
        try:
            said = orjson.loads(payload)
            version, uptime = said["versions"]["agent"], said["uptime_s"]
            self.about[agent] = About(str(version)[:40], float(uptime), int(said["outbox"]["waiting"]))
        except (ValueError, LookupError, TypeError, OverflowError):
            return

    def reading(self, topic: str, payload: bytes, *, at: float, dup: bool, retained: bool) -> None:
        """One message of telemetry; of its newest reading no more is kept than LONGEST."""
        if self.tally.add(topic, payload, at=at, dup=dup, retained=retained) and len(payload) > LONGEST:
            agent, device = topic.rsplit("/", 3)[1:3]
            tallied = self.tally.devices[agent, device]
            tallied.fields = cut(tallied.fields)

    def value(self, topic: str, payload: bytes, *, at: float, retained: bool) -> None:
        """One message to ``<agent>/<device>/<channel>``; what no agent would send there is passed over."""
        agent, device, channel = topic.split("/")
        key = (agent, device)
        if retained or device in ("request", "response") or not all(map(_NAME.fullmatch, (*key, channel))):
            return
        found = self.values.get(key)
        if found is None:
            if len(self.values) >= DEVICES:
                return
            found = self.values[key] = Values()
        found.received += 1
        found.at = at
        if channel in found.fields or len(found.fields) < CHANNELS:
            found.fields[channel] = _bare(payload)

    def look(self, now: float) -> None:
        """Bring the rates up to date. now: seconds of the clock by which readings arrived."""
        sources: Iterator[tuple[Key, DeviceTally | Values]] = chain(self.tally.devices.items(), self.values.items())
        for key, device in sources:
            if (rate := self.rates.get(key)) is None:
                self.rates[key] = Rate(now, now, device.received)
            else:
                rate.look(now, device.received)

    def of(self, key: Key) -> str:
        """Its state: an agent's Will counts more than what it had said of its devices."""
        agent = self.states.get((key[0], ""))
        return "offline" if agent == "offline" else self.states.get(key, "?")

    def known(self) -> Iterator[Key]:
        """Each device that was heard of, and each agent of which no device was."""
        devices = {key for key in self.states if key[1]} | self.tally.devices.keys() | self.values.keys()
        yield from devices
        with_devices = {agent for agent, _ in devices}
        yield from ((agent, "") for agent, device in self.states if not device and agent not in with_devices)

    def first(self, count: int, skip: int = 0) -> list[Key]:
        """So many to show, after those skipped: offline ones first, then those with gaps, then by name."""
        return nsmallest(skip + count, self.known(), key=self._order)[skip:]

    def row(self, key: Key, now: float) -> Row:
        agent, name = key
        device: DeviceTally | None = self.tally.devices.get(key)
        rate = self.rates.get(key)
        if device is None:
            if (bare := self.values.get(key)) is None:
                return Row(agent, name, self.of(key))
            age = max(0.0, now - bare.at)
            per_s = 0.0 if rate is None else rate.value
            return Row(agent, name, self.of(key), received=bare.received, rate=per_s, age=age, fields=bare.fields)
        return Row(
            agent,
            name,
            self.of(key),
            device.last,
            device.received,
            device.lost,
            0.0 if rate is None else rate.value,
            max(0.0, now - device.at),
            device.ts,
            device.fields,
        )

    def counts(self) -> tuple[int, int, int, int]:
        """Agents and offline ones, devices and offline ones."""
        agents = {agent for agent, _ in (*self.states, *self.tally.devices, *self.values)}
        away = sum(1 for agent in agents if self.states.get((agent, "")) == "offline")
        devices = [key for key in self.known() if key[1]]
        return len(agents), away, len(devices), sum(1 for key in devices if self.of(key) == "offline")

    @property
    def rate(self) -> float:
        """Readings a second of all devices."""
        return sum(rate.value for rate in self.rates.values())

    def _order(self, key: Key) -> tuple[bool, bool, Key]:
        device = self.tally.devices.get(key)
        return self.of(key) != "offline", device is None or not device.lost, key


def sight(base: str, template: Template | None = None, agent: str = "") -> Sight:
    """Nothing seen yet. template, agent: as ``Tally`` has them."""
    tally = Tally(base, template=template, agent=agent, remembered=REMEMBERED, pairs=PAIRS)
    return Sight(tally, Connection(persistent=False))


def _bare(payload: bytes) -> Any:
    """A bare value: what is JSON's number, true, false or null is that, all else text."""
    try:
        said = orjson.loads(payload[:VALUE_BYTES])
    except ValueError:
        said = payload[:VALUE_BYTES].decode(errors="replace")
    return str(said) if isinstance(said, dict | list) else said


def cut(fields: dict[str, Any]) -> dict[str, Any]:
    """As many fields, from the first, as LONGEST bytes of JSON hold."""
    kept: dict[str, Any] = {}
    left = LONGEST
    for name, value in fields.items():
        left -= len(orjson.dumps({name: value}))
        if left < 0:
            break
        kept[name] = value
    return kept


def as_text(row: Row) -> str:
    """``greenhouse-1/weather online seq 41, 0.5/s, missing 0: temperature 21.5``."""
    if row.seq is None:
        return f"{row.name} {row.state}" + (f" {row.rate:.1f}/s: {compact(row.fields)}" if row.fields else "")
    return f"{row.name} {row.state} seq {row.seq}, {row.rate:.1f}/s, missing {row.missing}: {compact(row.fields)}"


def as_json(row: Row, seen: str) -> dict[str, Any]:
    """For scripts. seen: when it was shown, RFC 3339; ts: the reading's own time."""
    return {
        "seen": seen,
        "agent": row.agent,
        "device": row.device or None,
        "state": row.state,
        "seq": row.seq,
        "received": row.received,
        "missing": row.missing,
        "rate": round(row.rate, 3),
        "ts": row.ts or None,
        "fields": row.fields,
    }
