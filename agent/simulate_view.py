"""How a simulation looks: a line that moves on a terminal, lines in a pipe, a table or one JSON object at the end."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from typing import Any, TextIO

from agent.simulate_count import Sums, Tally, Times


@dataclass(frozen=True, slots=True)
class Facts:
    """What was asked for. rate: readings a second of each device; ramp: seconds in which the agents start."""

    brokers: tuple[str, ...]
    agents: int
    devices: int
    rate: float
    ramp: float
    qos: int

    @property
    def wanted(self) -> float:
        """Readings a second of all agents; a process that is too slow for it makes fewer."""
        return self.agents * self.devices * self.rate


@dataclass(frozen=True, slots=True)
class Outcome:
    """One simulation, when it is over.

    base: before there was an agent; begin, end: of the time when all of them were to be at work; last: after the clean
    stop; lag: seconds by which the event loop was late at worst; unswept: retained topics that are left at the broker.
    """

    facts: Facts
    tally: Tally
    base: Sums
    begin: Sums
    end: Sums
    last: Sums
    lag: float
    unswept: int

    @property
    def seconds(self) -> float:
        return self.end.at - self.begin.at

    def rate(self, name: str) -> float:
        """Readings a second between begin and end."""
        more: int = getattr(self.end, name) - getattr(self.begin, name)
        return more / self.seconds if self.seconds > 0 else 0.0

    @property
    def lost(self) -> int:
        """Readings that no broker has acknowledged: dropped, refused, or still waiting at the end."""
        return self.last.made - self.last.acknowledged

    @property
    def cpu(self) -> float:
        """Processor time for each second: 1 is one core."""
        return (self.end.cpu_s - self.begin.cpu_s) / self.seconds if self.seconds > 0 else 0.0

    @property
    def memory_each(self) -> float:
        """Bytes of memory that an agent costs."""
        return (self.end.memory - self.base.memory) / max(1, self.end.started)

    def as_json(self) -> dict[str, Any]:
        facts, end, last = self.facts, self.end, self.last
        return {
            "brokers": list(facts.brokers),
            "agents": facts.agents,
            "devices": facts.devices,
            "rate": facts.rate,
            "ramp_s": facts.ramp,
            "qos": facts.qos,
            "connected": end.connected,
            "connecting": self.tally.connecting.as_json(),
            "away": self.tally.away.as_json(),
            "failures": {"count": last.failures, "agents_by_last_reason": dict(last.reasons)},
            "seconds": round(self.seconds, 3),
            "wanted_rate": facts.wanted,
            "made_rate": round(self.rate("made"), 2),
            "sent_rate": round(self.rate("sent"), 2),
            "acknowledged_rate": round(self.rate("acknowledged"), 2),
            "acknowledging": self.tally.acknowledging.as_json(),
            "made": last.made,
            "acknowledged": last.acknowledged,
            "lost": self.lost,
            "dropped": last.dropped,
            "refused": last.refused,
            "cpu_cores": round(self.cpu, 4),
            "cpu_each_s_per_s": round(self.cpu / max(1, end.started), 8),
            "memory_bytes": end.memory,
            "memory_each_bytes": round(self.memory_each),
            "loop_lag_worst_s": round(self.lag, 4),
            "retained_left": self.unswept,
        }


class View:
    """Shows how it goes. out: a terminal has one line that moves, anything else a line each time."""

    def __init__(self, out: TextIO, *, moving: bool) -> None:
        self._out = out
        self._moving = moving
        self._drawn = False

    def show(self, text: str) -> None:
        """How it stands."""
        if not self._moving:
            self._out.write(text + "\n")
        else:
            width = max(20, shutil.get_terminal_size().columns - 1)
            self._out.write("\r" + text[:width] + "\x1b[K")  # ECMA-48, EL: erase what the last one left behind it
            self._drawn = True
        self._out.flush()

    def say(self, text: str) -> None:
        """Something that stays."""
        if self._drawn:
            self._out.write("\n")
            self._drawn = False
        self._out.write(text + "\n")
        self._out.flush()


def progress(facts: Facts, before: Sums, now: Sums, began: float) -> str:
    """One line on how it stands."""
    seconds = max(1e-3, now.at - before.at)

    def rate(name: str) -> str:
        return f"{(getattr(now, name) - getattr(before, name)) / seconds:.0f}/s"

    parts = [
        f"{now.at - began:4.0f} s",
        f"{now.connected} of {facts.agents} connected",
        f"{rate('sent')} sent",
        f"{rate('acknowledged')} acknowledged",
        f"{now.waiting} waiting",
    ]
    if lost := now.dropped + now.refused:
        parts.append(f"{lost} LOST")
    if now.failures:
        parts.append(f"{now.failures} failures")
    parts += [f"{100 * (now.cpu_s - before.cpu_s) / seconds:.0f} % CPU", f"{now.memory / 1e6:.0f} MB"]
    return "  ".join(parts)


def table(outcome: Outcome) -> list[str]:
    """The end of it, for people."""
    facts, tally, end, last = outcome.facts, outcome.tally, outcome.end, outcome.last
    started = max(1, end.started)
    rows = [
        ("broker", ", ".join(facts.brokers)),
        (
            "agents",
            f"{facts.agents}, each {facts.devices} device{'s' * (facts.devices != 1)} at {facts.rate:g} readings/s, "
            f"QoS {facts.qos}, started within {facts.ramp:g} s",
        ),
        ("connected", f"{end.connected} of {facts.agents}"),
        ("connection time", _times(tally.connecting)),
    ]
    if last.failures:
        reasons = ", ".join(f"{reason} {count}" for reason, count in last.reasons.most_common())
        rows.append(("failures", f"{last.failures}; agents by the last reason: {reasons}"))
    if tally.away.count:
        rows.append(("back after a loss", f"{tally.away.count} times: {_times(tally.away)}"))
    rows += [
        (
            "published",
            f"{outcome.rate('sent'):.1f} of {facts.wanted:g} readings/s wanted, over {outcome.seconds:.1f} s",
        ),
        ("acknowledged", f"{outcome.rate('acknowledged'):.1f} readings/s; each after {_times(tally.acknowledging)}"),
        (
            "readings",
            f"{last.made} made, {last.acknowledged} acknowledged, {outcome.lost} lost"
            + (f" ({last.dropped} dropped, {last.refused} refused)" if last.dropped or last.refused else ""),
        ),
        ("CPU", f"{100 * outcome.cpu:.1f} % of a core; {1e3 * outcome.cpu / started:.3f} ms a second for each agent"),
        ("memory", f"{end.memory / 1e6:.0f} MB; {outcome.memory_each / 1e3:.0f} kB for each agent"),
        ("event loop", f"late by {outcome.lag * 1e3:.0f} ms at worst"),
    ]
    if outcome.unswept:
        rows.append(("left behind", f"{outcome.unswept} retained topics; the broker did not take their removal"))
    return [f"{name:<18} {text}" for name, text in rows]


def as_text(outcome: Outcome, *, as_json: bool) -> str:
    return json.dumps(outcome.as_json()) if as_json else "\n".join(table(outcome))


def end(outcome: Outcome, *, as_json: bool) -> None:
    """The last word, on standard output."""
    sys.stdout.write(as_text(outcome, as_json=as_json) + "\n")
    sys.stdout.flush()


def _times(times: Times) -> str:
    if not times.count:
        return "none"
    return f"p50 {_span(times.quantile(0.5))}, p99 {_span(times.quantile(0.99))}, max {_span(times.longest)}"


def _span(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.2f} s"
