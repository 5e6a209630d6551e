"""How `outstation watch` looks: the whole terminal, or in a pipe a line for each device that has something new."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import orjson

from agent.cli_broker import EX_UNAVAILABLE
from agent.cli_verify import Options, Verification
from agent.cli_verify_seen import Key
from agent.cli_verify_view import Facts, View, span
from agent.cli_watch_seen import Row, Sight, as_json, as_text, sight
from agent.clock import Clock, rfc3339
from agent.tally import compact
from agent.testing.subscriber import Message

if TYPE_CHECKING:
    from rich.console import Group

HEAD = 6
"""Lines of the terminal that are no devices: three of totals, one blank, two of the table's head."""
COUNTING_NS = 1_000_000_000
"""Between two looks at totals and rates, which go over all devices: 10,000 of them take 21 ms."""


class WatchOptions(Options):
    """As for `verify`, and what agents say of themselves, and bare values."""

    @property
    def filters(self) -> tuple[str, ...]:
        root = f"{self.base}/{self.agent or '+'}"
        if self.template is not None:
            return (*super().filters, f"{root}/status")
        # One filter for readings, bare values and states of devices: brokers send a message once for each that fits.
        return f"{root}/+/+", f"{root}/availability", f"{root}/status"


class LinesView:
    """One line for each device whose state or reading is new, at most one in ``every`` seconds; text or JSON."""

    def __init__(self, facts: Facts, sight: Sight, clock: Clock, *, json: bool) -> None:
        self._facts = facts
        self._sight = sight
        self._clock = clock
        self._json = json
        self._lines: list[str] = []
        self._shown: dict[Key, tuple[str, int, int]] = {}
        self._due_ns = 0

    def start(self) -> None:
        self._due_ns = self._clock.mono_ns()
        if not self._json:
            self._lines += [f"broker     {self._facts.broker}", f"listening  {self._facts.listening}"]
        self.show()

    def look(self) -> None:
        now_ns = self._clock.mono_ns()
        if now_ns >= self._due_ns:
            # From when it was due: looks come a little late, and would else miss every other time.
            every_ns = int(self._facts.every * 1e9)
            self._due_ns = max(self._due_ns, now_ns - every_ns) + every_ns
            self._look(now_ns)

    def show(self) -> None:
        if self._lines:
            lines, self._lines = self._lines, []
            sys.stdout.write("\n".join(lines) + "\n")
            sys.stdout.flush()

    def end(self) -> None:
        self._look(self._clock.mono_ns())
        self.show()

    def _look(self, now_ns: int) -> None:
        when = rfc3339(self._clock.wall_ns(now_ns))
        notes = self._sight.connection.notes
        while notes:
            note = notes.popleft()
            said = orjson.dumps({"seen": when, "note": note}).decode() if self._json else f"{when[:19]}Z {note}"
            self._lines.append(said)
        self._sight.look(now_ns / 1e9)
        for key in sorted(self._sight.known()):
            row = self._sight.row(key, now_ns / 1e9)
            news = (row.state, row.received, row.missing)
            if self._shown.get(key) != news:
                self._shown[key] = news
                said = orjson.dumps(as_json(row, when)).decode() if self._json else f"{when[:19]}Z {as_text(row)}"
                self._lines.append(said)


class ScreenView:
    """The whole terminal, whatever its size is now. Needs rich, imported here alone."""

    def __init__(self, facts: Facts, sight: Sight, clock: Clock) -> None:
        from rich.console import Console
        from rich.live import Live

        self._facts = facts
        self._sight = sight
        self._clock = clock
        self._began_ns = clock.mono_ns()
        self._counted_ns = -COUNTING_NS
        self._counts = (0, 0, 0, 0)
        self._all = 0
        self._page = 0
        self._console = Console()
        # Drawn when we say so, by a timer: rich's own refreshing would be a thread.
        self._live = Live(
            console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False, screen=True
        )

    def start(self) -> None:
        self._live.start()

    def look(self) -> None:
        now_ns = self._clock.mono_ns()
        if now_ns - self._counted_ns >= COUNTING_NS:
            self._counted_ns = now_ns
            self._sight.look(now_ns / 1e9)
            self._counts = self._sight.counts()
            self._all = sum(1 for _ in self._sight.known())
        self._live.update(self._render(now_ns / 1e9))

    def show(self) -> None:
        self._live.refresh()

    def end(self) -> None:
        self._live.stop()
        self._counts = self._sight.counts()
        self._console.print(f"{self._totals()}, {self._sight.tally.lost} missing", highlight=False, markup=False)

    def turn(self, pages: int) -> None:
        """Show other devices: the next ones, or (-1) those before."""
        self._page = max(0, self._page + pages)

    # ---------------------------------------------------------------------------------------------------------------

    def _totals(self) -> str:
        agents, agents_away, devices, devices_away = self._counts
        return (
            f"{agents} agent{'' if agents == 1 else 's'} ({agents_away} offline), "
            f"{devices} device{'' if devices == 1 else 's'} ({devices_away} offline), {self._sight.rate:.1f} readings/s"
        )

    def _render(self, now: float) -> Group:
        from rich.console import Group
        from rich.text import Text

        size = self._console.size
        rows = max(1, size.height - HEAD)
        pages = max(1, -(-self._all // rows))
        self._page = min(self._page, pages - 1)
        connection = self._sight.connection
        link = Text(self._facts.broker, no_wrap=True, overflow="ellipsis")
        link.append("  connected" if connection.up else "  AWAY", style="green" if connection.up else "bold red")
        link.append(f"  for {span(now - self._began_ns / 1e9)}")
        keys = "q ends" if pages == 1 else f"q ends, n and p turn: page {self._page + 1} of {pages}"
        shown = [self._sight.row(key, now) for key in self._sight.first(rows, self._page * rows)]
        body: Any = self._table(shown, size.width) if shown else Text("no agent has been heard of yet")
        return Group(
            link,
            Text(self._totals(), no_wrap=True, overflow="ellipsis"),
            Text(self._about(shown, keys), style="dim", no_wrap=True, overflow="ellipsis"),
            Text(""),
            body,
        )

    def _about(self, shown: list[Row], keys: str) -> str:
        """The keys, the newest note of our own connection, and what the first agent shown reports."""
        parts = [keys]
        if notes := self._sight.connection.notes:
            parts.append(notes[-1])
        elif shown and (about := self._sight.about.get(shown[0].agent)) is not None:
            up = span(about.uptime)
            parts.append(f"{shown[0].agent}: version {about.version}, up {up}, {about.waiting} in its outbox")
        return "; ".join(parts)

    def _table(self, rows: list[Row], width: int) -> Any:
        """Numbers whole, however narrow the terminal: names are cut, then the reading is, then it is left out."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        numbers = [
            (
                "-" if row.seq is None else str(row.seq),
                f"{row.rate:.1f}",
                str(row.missing),
                "-" if row.age is None else span(row.age),
            )
            for row in rows
        ]
        widths = [max([len(head), *(len(one[at]) for one in numbers)]) for at, head in enumerate(_HEADS)]
        fixed = sum(widths) + _STATE + _GAP * (len(widths) + 2)
        longest = max(len(row.name) for row in rows)
        name_width = max(_SHORTEST, min(longest, width - fixed - _READING))
        left = width - fixed - name_width
        table = Table(box=box.SIMPLE_HEAD, padding=(0, _GAP - 1, 0, 0), pad_edge=False, show_edge=False)
        table.add_column("device", width=name_width, no_wrap=True, overflow="ellipsis")
        table.add_column("state", width=_STATE, no_wrap=True)
        for head, column in zip(_HEADS, widths, strict=True):
            table.add_column(head, width=column, justify="right", no_wrap=True)
        if left >= _READING:
            table.add_column("last reading", width=left, no_wrap=True, overflow="ellipsis")
        for row, (seq, rate, missing, age) in zip(rows, numbers, strict=True):
            cells = [
                Text(row.name),
                Text(row.state, style={"online": "green", "offline": "bold red"}.get(row.state, "")),
                Text(seq),
                Text(rate),
                Text(missing, style="bold red" if row.missing else ""),
                Text(age),
            ]
            if left >= _READING:
                cells.append(Text(compact(row.fields)))
            table.add_row(*cells)
        return table


_HEADS = ("seq", "per s", "missing", "age")
_GAP, _STATE, _SHORTEST, _READING = 2, 7, 8, 12
"""Cells of a terminal: between two of the table, of a state, of a name at least, of a reading at least."""


class Watching(Verification):
    """One run, from the connection to the end."""

    def __init__(self, options: WatchOptions, clock: Clock) -> None:
        self._sight = sight(options.base, options.template, options.agent or options.own)
        self._screen: ScreenView | None = None
        super().__init__(options, clock, self._sight)

    def _finish(self) -> int:
        """0, or 69 if the broker is away at the end."""
        super()._finish()
        return 0 if self._subscriber is None or self._sight.connection.up else EX_UNAVAILABLE

    def _make_view(self, facts: Facts) -> View:
        if self._options.show != "live":
            return LinesView(facts, self._sight, self._clock, json=self._options.show == "json")
        self._screen = ScreenView(facts, self._sight, self._clock)
        return self._screen

    def _message(self, message: Message) -> None:
        levels = message.topic.removeprefix(f"{self._options.base}/").split("/")
        if len(levels) == 2 and levels[1] == "status":
            self._sight.status_report(levels[0], message.payload)
        elif self._options.tells_state(message.topic):
            super()._message(message)
        elif self._options.template is None and len(levels) == 3 and levels[2] != "telemetry":
            self._sight.value("/".join(levels), message.payload, at=message.at, retained=message.retain)
        else:
            self._sight.reading(message.topic, message.payload, at=message.at, dup=message.dup, retained=message.retain)

    def _key(self, key: str) -> None:
        if self._screen is not None and key in ("n", " ", "p"):
            self._screen.turn(-1 if key == "p" else 1)
        super()._key(key)


def main(options: WatchOptions) -> int:
    """Listen and show; the exit status. Raises LinkError if no broker takes us."""
    return Watching(options, Clock()).run()
