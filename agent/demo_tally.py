"""What the demo's subscriber got: readings by device, and the states and faults that the agent tells of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agent.tally import DeviceTally, parse
from agent.testing.subscriber import Message


@dataclass(slots=True)
class DemoDevice(DeviceTally):
    """A device of the demo: its numbers, and what its agent says of it."""

    state: str = "?"
    faults: int = 0


class DemoTally:
    """All that arrived below ``<base>/<agent>``."""

    def __init__(self, topic: str, devices: tuple[str, ...]) -> None:
        self.devices = {name: DemoDevice() for name in devices}
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
                for arrival in parse(message.payload):
                    self.devices[device].count(arrival, at=message.at)

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
