"""What the demo's subscriber got: readings by device, and what is missing or came twice, judged by ``seq`` alone."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from agent.testing.subscriber import Message


@dataclass(slots=True)
class DeviceTally:
    """One device as seen from the broker."""

    state: str = "?"
    received: int = 0
    duplicates: int = 0
    faults: int = 0
    last: int | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    missing: set[int] = field(default_factory=set)
    """Numbers between the first and the last that have not arrived: only these are remembered."""

    @property
    def lost(self) -> int:
        return len(self.missing)

    def count(self, seq: int, fields: dict[str, Any]) -> None:
        """One reading arrived."""
        if self.last is None or seq > self.last:
            self.missing.update(range(seq if self.last is None else self.last + 1, seq))
            self.last = seq
            self.fields = fields
        elif seq in self.missing:
            self.missing.remove(seq)
        else:
            self.duplicates += 1
            return
        self.received += 1


class Tally:
    """All that arrived below ``<base>/<agent>``."""

    def __init__(self, topic: str, devices: tuple[str, ...]) -> None:
        self.devices = {name: DeviceTally() for name in devices}
        self.agent_state = "?"
        self.last_fault = ""
        self.topics: set[str] = set()
        """State topics seen: retained at the broker, so that somebody has to clear them in the end."""
        self._prefix = f"{topic}/"

    def add(self, message: Message) -> bool:
        """Count one message. False for what somebody else has published there: it is passed over."""
        try:
            self._add(message)
        except (ValueError, LookupError, TypeError, AttributeError):  # no JSON, or not as the agent's is made
            return False
        return True

    def _add(self, message: Message) -> None:
        path = message.topic.removeprefix(self._prefix).split("/")
        if path[-1] != "telemetry" and message.payload:
            self.topics.add(message.topic)
        match path:
            case ["availability"]:
                self.agent_state = message.payload.decode(errors="replace")
            case ["status"] if message.payload:
                self._status(message.json())
            case [device, "availability"] if device in self.devices:
                self.devices[device].state = message.payload.decode(errors="replace")
            case [device, "telemetry"] if device in self.devices:
                payload = message.json()
                for reading in payload if isinstance(payload, list) else [payload]:
                    self.devices[device].count(reading["seq"], reading["fields"])

    def _status(self, report: dict[str, Any]) -> None:
        for name, device in report["devices"].items():
            tally = self.devices.get(name)
            if tally is None:
                continue
            faults = device["faults"]
            count = sum(fault["count"] for fault in faults.values())
            if count > tally.faults:
                kind, fault = max(faults.items(), key=lambda item: item[1]["count"])
                self.last_fault = f"{name}: {kind}: {fault['bytes']}"
            tally.faults = count

    def summary(self) -> str:
        """The last line of the demo."""
        tallies = self.devices.values()
        received, lost = sum(d.received for d in tallies), sum(d.lost for d in tallies)
        duplicates, faults = sum(d.duplicates for d in tallies), sum(d.faults for d in tallies)
        by_device = ", ".join(f"{name} {tally.received}" for name, tally in self.devices.items())
        return f"received {received} readings ({by_device}); lost {lost}, duplicates {duplicates}; faults {faults}"


def compact(fields: dict[str, Any]) -> str:
    """Fields for people: ``temperature 21.5, humidity 44.1``."""
    return ", ".join(
        f"{name} {value if isinstance(value, str) else json.dumps(value)}" for name, value in fields.items()
    )
