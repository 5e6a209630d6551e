"""How `outstation verify` looks: a live table on a terminal, plain lines in a pipe, one JSON object for scripts."""

from __future__ import annotations

import json
import sys
from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from agent.cli_verify_seen import Key, Seen, as_json, line, summary, totals, verdict
from agent.cli_verify_seen import counts as counts_of
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
        devices = f"{len(tally.devices)} device{'' if len(tally.devices) == 1 else 's'}"
        so_far = span(now - self._began_ns / 1e9)
        head.add_row("so far", Text(f"{tally.received} readings of {devices} in {so_far}; {rate:.1f}/s now"))
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
        """Numbers whole, however narrow the terminal: names are cut, then the reading is, then it is left out."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        rows = [(key, self._state(key), device) for key, device in self._seen.devices()[:ROWS]]
        counts = [
            (str(d.received), str(d.lost), str(d.duplicates + d.redelivered), str(d.disorder), span(now - d.at))
            for _, _, d in rows
        ]
        widths = [max([len(head), *(len(row[at]) for row in counts)]) for at, head in enumerate(_HEADS)]
        name_width = max([6, *(len("/".join(key)) for key, _, _ in rows)])
        fixed = sum(widths) + _GAP * (len(widths) + 2) + _STATE
        name_width = max(_SHORTEST, min(name_width, self._console.width - fixed - _READING))
        left = self._console.width - fixed - name_width
        # A blank of padding and one of the box between two columns.
        table = Table(box=box.SIMPLE_HEAD, padding=(0, _GAP - 1, 0, 0), pad_edge=False, show_edge=False)
        table.add_column("device", width=name_width, no_wrap=True, overflow="ellipsis")
        table.add_column("state", width=_STATE, no_wrap=True)
        for head, width in zip(_HEADS, widths, strict=True):
            table.add_column(head, width=width, justify="right", no_wrap=True)
        if left >= len("last reading"):
            table.add_column("last reading", width=left, no_wrap=True, overflow="ellipsis")
        for ((agent, name), state, device), numbers in zip(rows, counts, strict=True):
            cells = [
                Text(f"{agent}/{name}"),
                Text(state, style={"online": "green", "offline": "red"}.get(state, "")),
                *(
                    Text(number, style=style if number != "0" else "")
                    for number, style in zip(numbers, _STYLES, strict=True)
                ),
            ]
            if left >= len("last reading"):
                rare = ", ".join(f"{word} {count}" for word, count in islice(counts_of(device), 3, None))
                cells.append(Text.assemble((f"{rare}; " if rare else "", "yellow"), compact(device.fields)))
            table.add_row(*cells)
        return table

    def _state(self, key: Key) -> str:
        """The agent's Will counts more than what it had said of its devices."""
        states = self._seen.states
        return "offline" if states.get((key[0], "")) == "offline" else states.get(key, "?")


_HEADS = ("received", "missing", "dup", "disorder", "age")
_STYLES = ("", "bold red", "yellow", "bold red", "")
_GAP, _STATE, _SHORTEST, _READING = 2, 7, 8, 12
"""Cells of a terminal: between two of the table, of a state, of a name at least, of a reading before a name is cut."""


class _Rate:
    """Readings a second over the last few looks."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int]] = deque(maxlen=12)  # three seconds at four looks a second

    def __call__(self, now: float, received: int) -> float:
        self._looks.append((now, received))
        then, before = self._looks[0]
        return (received - before) / (now - then) if now > then else 0.0


def span(seconds: float) -> str:
    """``0.4s``, ``12s``, ``5m``, ``3h``, ``9d``: how long, for people."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)}{unit}"
    return f"{seconds:.1f}s" if seconds < 10 else f"{int(seconds)}s"
