"""How `outstation verify` looks: a live table on a terminal, plain lines in a pipe, one JSON object for scripts."""

from __future__ import annotations

import json
import sys
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from agent.cli_verify_seen import Key, Seen, as_json, line, summary, totals, verdict
from agent.clock import Clock, rfc3339
from agent.logline import Repeats
from agent.tally import DeviceTally, compact

if TYPE_CHECKING:
    from rich.console import Group

NOTES = 4
ROWS = 40
"""Most devices in the table: those in trouble come first."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What stays the same. every: seconds between lines of totals."""

    broker: str
    listening: str
    every: float


class View(Protocol):
    """A way to show it.

    ``look`` is called while nothing is counted, ``show`` when counting goes on: a pipe that nobody reads holds up the
    showing, and not the listening.
    """

    def start(self) -> None: ...
    def look(self) -> None: ...
    def show(self) -> None: ...
    def end(self) -> None:
        """The last look and the summary; nothing is counted any more."""


class PlainView:
    """A line for what happens, and now and then one of totals."""

    def __init__(self, facts: Facts, seen: Seen, clock: Clock) -> None:
        self._facts = facts
        self._seen = seen
        self._clock = clock
        self._out: TextIO = sys.stdout
        self._lines: list[str] = []
        self._shown: dict[Key, tuple[int, ...]] = {}
        self._repeats = Repeats(limit=4096)
        self._garbage = 0
        self._received = 0
        self._due_ns = 0

    def start(self) -> None:
        self._due_ns = self._clock.mono_ns()
        self._lines += [f"broker     {self._facts.broker}", f"listening  {self._facts.listening}"]
        self.show()

    def look(self) -> None:
        seen, notes = self._seen, self._seen.connection.notes
        while notes:
            self._say(notes.popleft())
        for key, device in seen.tally.devices.items():
            self._device(key, device)
        if seen.tally.garbage > self._garbage and (times := self._repeats("garbage")):
            last = seen.tally.first_garbage if times == 1 else f"{seen.tally.garbage} by now"
            self._say(f"a message that no agent sends: {last}")
        self._garbage = seen.tally.garbage
        if self._clock.mono_ns() >= self._due_ns and seen.tally.received != self._received:
            self._due_ns = self._clock.mono_ns() + int(self._facts.every * 1e9)
            self._received = seen.tally.received
            self._say(totals(seen))

    def show(self) -> None:
        if self._lines:
            lines, self._lines = self._lines, []
            self._out.write("\n".join(lines) + "\n")
            self._out.flush()

    def end(self) -> None:
        self.look()
        self._lines += summary(self._seen)
        self.show()

    def _device(self, key: Key, device: DeviceTally) -> None:
        """A line when its troubles change, but of endless trouble only the 1st, 2nd, 4th, 8th ... change."""
        now = (device.lost, device.duplicates, device.disorder, device.reused, device.restarts, device.resumptions)
        before = self._shown.get(key)
        if now == before:
            return
        self._shown[key] = now
        if before is None and not any(now[:5]):
            self._say(f"{'/'.join(key)}: the first reading has seq {device.first}")
        elif self._repeats(key):
            self._say(line(key, device))

    def _say(self, text: str) -> None:
        self._lines.append(f"{rfc3339(self._clock.wall_ns(self._clock.mono_ns()))[:19]}Z {text}")


class JsonView(PlainView):
    """One JSON object at the end, on standard output; until then plain lines, on standard error."""

    def __init__(self, facts: Facts, seen: Seen, clock: Clock) -> None:
        super().__init__(facts, seen, clock)
        self._out = sys.stderr

    def end(self) -> None:
        self.look()
        self.show()
        sys.stdout.write(json.dumps(as_json(self._seen), ensure_ascii=False) + "\n")
        sys.stdout.flush()


class LiveView:
    """A table that moves. Needs rich, imported here alone."""

    def __init__(self, facts: Facts, seen: Seen, clock: Clock) -> None:
        from rich.console import Console
        from rich.live import Live

        self._facts = facts
        self._seen = seen
        self._clock = clock
        self._notes: deque[str] = deque(maxlen=NOTES)
        self._began_ns = clock.mono_ns()
        self._rate = _Rate()
        self._console = Console()
        # Drawn when we say so, by a timer: rich's own refreshing would be a thread.
        self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)

    def start(self) -> None:
        self._live.start()

    def look(self) -> None:
        notes = self._seen.connection.notes
        while notes:
            when = rfc3339(self._clock.wall_ns(self._clock.mono_ns()))[11:19]
            self._notes.append(f"{when}Z  {notes.popleft()}")
        self._live.update(self._render())

    def show(self) -> None:
        self._live.refresh()

    def end(self) -> None:
        self.look()
        self.show()
        self._live.stop()
        for text in summary(self._seen):
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _render(self) -> Group:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        seen, tally = self._seen, self._seen.tally
        now = self._clock.mono_ns() / 1e9
        head = Table.grid(padding=(0, 2))
        head.add_column(style="bold")
        head.add_column(overflow="fold")
        link = Text(self._facts.broker)
        link.append("  connected" if seen.connection.up else "  AWAY", style="green" if seen.connection.up else "red")
        head.add_row("broker", link)
        head.add_row("listening", Text(f"{self._facts.listening}  (q ends)"))
        rate = self._rate(now, tally.received)
        head.add_row("so far", Text(f"{_span(now - self._began_ns / 1e9)}, {totals(seen)}, {rate:.1f}/s"))
        style = "bold red" if not tally.holds else "green" if tally.received else "yellow"
        head.add_row("now", Text(verdict(seen), style=style))
        parts: list[Any] = [head, self._table(now)]
        if len(tally.devices) > ROWS:
            parts.append(Text(f"and {len(tally.devices) - ROWS} devices more, none of them worse"))
        if tally.garbage:
            text = f"{tally.garbage} x not of an agent; the first: {tally.first_garbage}"
            parts.append(Text(text, style="yellow", overflow="ellipsis", no_wrap=True))
        parts += [Text(note, style="dim", overflow="ellipsis", no_wrap=True) for note in self._notes]
        return Group(*parts)

    def _table(self, now: float) -> Any:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        rows = self._seen.devices()[:ROWS]
        table = Table(box=box.SIMPLE_HEAD, expand=True, padding=(0, 1), pad_edge=False)
        table.add_column("device", no_wrap=True, overflow="ellipsis")
        table.add_column("state", no_wrap=True)
        columns = [column for column in _COLUMNS if column[2] or any(column[1](device) for _, device in rows)]
        for name in ("received", *(name for name, _, _, _ in columns), "age"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("last reading", ratio=1, overflow="ellipsis", no_wrap=True)
        for (agent, name), device in rows:
            state = self._seen.states.get((agent, name), "?")
            if self._seen.states.get((agent, "")) == "offline":
                state = "offline"
            table.add_row(
                Text(f"{agent}/{name}"),
                Text(state, style={"online": "green", "offline": "red"}.get(state, "")),
                str(device.received),
                *(_count(look(device), style) for _, look, _, style in columns),
                _span(now - device.at),
                Text(compact(device.fields)),
            )
        return table


_COLUMNS: tuple[tuple[str, Any, bool, str], ...] = (
    ("missing", lambda device: device.lost, True, "bold red"),
    ("dup", lambda device: device.duplicates + device.redelivered, True, "yellow"),
    ("disorder", lambda device: device.disorder, True, "bold red"),
    ("reused", lambda device: device.reused, False, "bold red"),
    ("anew", lambda device: device.restarts, False, "bold red"),
    ("skipped", lambda device: device.apart.count, False, "dim"),
    ("unheard", lambda device: device.unheard.count, False, "dim"),
    ("unsynced", lambda device: device.unsynced, False, "yellow"),
)
"""Columns of counts: heading, what it shows, whether it is there when all of it is 0, how what is not 0 looks."""


def _count(number: int, style: str) -> Any:
    from rich.text import Text

    return Text(str(number), style=style if number else "")


class _Rate:
    """Readings a second over the last few looks."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int]] = deque(maxlen=12)  # three seconds at four looks a second

    def __call__(self, now: float, received: int) -> float:
        self._looks.append((now, received))
        then, before = self._looks[0]
        return (received - before) / (now - then) if now > then else 0.0


def _span(seconds: float) -> str:
    """``0.4s``, ``12s``, ``5m``, ``3h``, ``9d``: how long, for people."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)}{unit}"
    return f"{seconds:.1f}s" if seconds < 10 else f"{int(seconds)}s"
