"""What `outstation verify` has seen, and what it proves: counts to words, JSON and an exit status. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from agent.cli_broker import EX_UNAVAILABLE
from agent.codec import OFFLINE, ONLINE
from agent.tally import DEVICES, DeviceTally, Tally

EX_NOINPUT = 66
NOTES = 1000
"""Most lines about the connection that wait to be shown."""

Key = tuple[str, str]
"""Agent and device."""


@dataclass(slots=True)
class Connection:
    """Our own connection to the broker: as far as it reaches, so far the proof does."""

    persistent: bool
    up: bool = False
    connects: int = 0
    gaps: int = 0
    """Connections for which the broker had not queued: what was sent before them, we have not heard."""
    notes: deque[str] = field(default_factory=lambda: deque(maxlen=NOTES))

    def accepted(self, kept: bool) -> bool:
        """The broker takes us; kept: with our session. Whether something may have passed us by."""
        self.up = True
        self.connects += 1
        if self.connects == 1:
            if kept:
                self.notes.append("the broker has kept this session since an earlier run: what it queued comes first")
            return False
        if kept:
            self.notes.append("connected again: the broker has queued what was sent meanwhile")
            return False
        self.gaps += 1
        why = "it has lost this session" if self.persistent else "with --client-id NAME it would queue"
        self.notes.append(f"connected again: what was sent meanwhile is not heard and proves nothing ({why})")
        return True

    def lost(self, reason: str) -> None:
        """It is gone; told more than once for one loss, as paho does."""
        if self.up:
            self.notes.append(f"the connection is lost ({reason}); tried again every second")
        self.up = False


@dataclass(slots=True)
class Seen:
    """All that one run has seen."""

    tally: Tally
    connection: Connection
    states: dict[Key, str] = field(default_factory=dict)
    """What agents say of themselves (device "") and of their devices: online or offline. No part of the proof."""

    def state(self, agent: str, device: str, said: bytes) -> None:
        """One more word of an agent; past a bound those of new devices are left out."""
        if (agent, device) in self.states or len(self.states) < 2 * DEVICES:
            self.states[agent, device] = {ONLINE: "online", OFFLINE: "offline"}.get(said, "?")

    def devices(self) -> list[tuple[Key, DeviceTally]]:
        """Those in trouble first, else by name."""
        return sorted(self.tally.devices.items(), key=lambda item: (item[1].holds, item[0]))

    def status(self) -> int:
        """The exit status."""
        if not self.tally.holds:
            return 1
        if not self.connection.up:
            return EX_UNAVAILABLE
        return 0 if self.tally.received else EX_NOINPUT


def counts(device: DeviceTally) -> Iterator[tuple[str, int]]:
    """What a device's numbers tell beside those received: name and count. The first three are always of interest."""
    yield "missing", device.lost
    yield "duplicates", device.duplicates
    yield "out of order", device.disorder
    for name, count in (
        ("reused", device.reused),
        ("began anew", device.restarts),
        ("re-sent by the broker", device.redelivered),
        ("skipped at a resumption", device.apart.count),
        ("not heard", device.unheard.count),
        ("unsynced", device.unsynced),
    ):
        if count:
            yield name, count


def line(key: Key, device: DeviceTally) -> str:
    """One device: ``greenhouse-1/weather: received 120 (seq 41..163), missing 3 (98..100), duplicates 0, ...``."""
    parts = [f"received {device.received} (seq {device.first}..{device.last})"]
    for name, count in counts(device):
        which = f" ({device.missing.text(4)})" if name == "missing" and device.missing else ""
        parts.append(f"{name} {count}{which}")
    return f"{'/'.join(key)}: {', '.join(parts)}"


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def totals(seen: Seen) -> str:
    """All devices in one line."""
    devices = list(seen.tally.devices.values())
    return (
        f"received {seen.tally.received} of {len(devices)} device{_s(len(devices))}, "
        f"missing {seen.tally.lost}, duplicates {sum(d.duplicates for d in devices)}, "
        f"out of order {sum(d.disorder for d in devices)}"
    )


def summary(seen: Seen) -> Iterator[str]:
    """The end of a run: each device, what limits the proof, and the verdict."""
    tally, connection = seen.tally, seen.connection
    for key, device in seen.devices():
        yield line(key, device)
    if tally.garbage:
        yield f"{tally.garbage} message{_s(tally.garbage)} that no agent sends; the first: {tally.first_garbage}"
    if tally.retained:
        yield f"{tally.retained} retained message{_s(tally.retained)} passed over: agents retain no readings"
    if connection.gaps:
        yield f"{connection.gaps} reconnection{_s(connection.gaps)} to a broker that had not queued for us"
    yield verdict(seen)


def verdict(seen: Seen) -> str:
    """The last line."""
    status = seen.status()
    if status == 1:
        wrong: dict[str, int] = {}
        for device in seen.tally.devices.values():
            for name, count in (
                ("lost", device.lost),
                ("out of order", device.disorder),
                ("under a number that was taken", device.reused),
                ("numbered from 1 again", device.restarts),
            ):
                wrong[name] = wrong.get(name, 0) + count
        return "NOT PROVED: " + ", ".join(f"{count} {name}" for name, count in wrong.items() if count)
    if status == EX_NOINPUT:
        return "NOTHING PROVED: no reading arrived; does an agent run, and publish below this topic?"
    if status == EX_UNAVAILABLE:
        return "NOT PROVED TO THE END: the broker is away; until then nothing was lost and nothing out of order"
    devices = list(seen.tally.devices.values())
    duplicates = sum(d.duplicates + d.redelivered for d in devices)
    repeated = f"; {duplicates} came twice" if duplicates else ""
    open_ended = sum(d.apart.count + d.unheard.count for d in devices)
    unproved = f"; {open_ended} skipped or not heard prove nothing" if open_ended else ""
    return f"PROVED: of {seen.tally.received} readings none is lost and none out of order{repeated}{unproved}"


def as_json(seen: Seen) -> dict[str, Any]:
    """For scripts. Ranges are pairs, both ends inclusive; at most the lowest 100 of a device."""
    tally, connection = seen.tally, seen.connection
    return {
        "holds": seen.status() == 0,
        "status": seen.status(),
        "verdict": verdict(seen),
        "received": tally.received,
        "lost": tally.lost,
        "garbage": tally.garbage,
        "first_garbage": tally.first_garbage or None,
        "retained": tally.retained,
        "connection": {
            "up": connection.up,
            "persistent": connection.persistent,
            "connects": connection.connects,
            "unqueued": connection.gaps,
        },
        "devices": [
            {
                "agent": agent,
                "device": name,
                "holds": device.holds,
                "received": device.received,
                "first": device.first,
                "last": device.last,
                "lost": device.lost,
                "missing": list(device.missing)[:100],
                "duplicates": device.duplicates,
                "redelivered": device.redelivered,
                "out_of_order": device.disorder,
                "reused": device.reused,
                "restarts": device.restarts,
                "resumptions": device.resumptions,
                "skipped": device.apart.count,
                "unheard": device.unheard.count,
                "unsynced": device.unsynced,
                "backfilled": device.backfilled,
                "last_ts": device.ts,
                "last_fields": device.fields,
            }
            for (agent, name), device in sorted(tally.devices.items())
        ],
    }
