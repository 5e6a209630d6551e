"""How the demo looks: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import termios
import tty
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from agent.demo_tally import DemoTally
from agent.tally import compact
from agent.testing.subscriber import Message

if TYPE_CHECKING:
    from rich.console import Group

MESSAGES = 6
LOG_LINES = 4


@dataclass(frozen=True, slots=True)
class Facts:
    """What stays the same: shown at the top."""

    broker: str
    agent: str
    watch: str
    config: str


class View(Protocol):
    """A way to show it."""

    def start(self) -> None: ...
    def message(self, message: Message) -> None: ...
    def log(self, line: str) -> None: ...
    def refresh(self) -> None: ...
    def say(self, text: str) -> None: ...
    def stop(self) -> None: ...


class PlainView:
    """A line for each message. For pipes, files and CI."""

    def __init__(self, facts: Facts, tally: DemoTally, out: TextIO) -> None:
        self._facts = facts
        self._tally = tally
        self._out = out
        self._faults = 0

    def start(self) -> None:
        facts = self._facts
        self.say(f"broker         {facts.broker}")
        self.say(f"watch it       {facts.watch}")
        self.say(f"configuration  {facts.config}")

    def message(self, message: Message) -> None:
        if message.topic.endswith(("/status", "/info")):
            self.say(f"{message.topic} ({len(message.payload)} bytes of JSON)")
            faults = sum(device.faults for device in self._tally.devices.values())
            if faults > self._faults:
                self._faults = faults
                self.say(f"# a corrupt line became a fault, {self._tally.last_fault}")
        else:
            self.say(f"{message.topic} {message.payload.decode(errors='replace')}")

    def log(self, line: str) -> None:
        self.say(f"# agent: {line}")

    def refresh(self) -> None:
        pass

    def say(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()

    def stop(self) -> None:
        pass


class LiveView:
    """A table that moves. Needs rich, imported here alone."""

    def __init__(self, facts: Facts, tally: DemoTally) -> None:
        from rich.console import Console
        from rich.live import Live

        self._facts = facts
        self._tally = tally
        self._messages: deque[str] = deque(maxlen=MESSAGES)
        self._lines: deque[str] = deque(maxlen=LOG_LINES)
        self._console = Console()
        # Drawn when we say so, by a timer: rich's own refreshing would be a thread.
        self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)

    def start(self) -> None:
        self._live.start()
        self.refresh()

    def message(self, message: Message) -> None:
        topic = message.topic.split("/", 2)[-1]
        if message.topic.endswith(("/status", "/info")):
            self._messages.append(f"{topic}  ({len(message.payload)} bytes of JSON)")
        elif topic.endswith("/telemetry"):
            payload = message.json()
            for reading in payload if isinstance(payload, list) else [payload]:
                when, seq = reading["ts"][11:23], reading["seq"]
                self._messages.append(f"{when} {topic.partition('/')[0]} #{seq}  {compact(reading['fields'])}")
        else:
            self._messages.append(f"{topic}  {message.payload.decode(errors='replace')}")

    def log(self, line: str) -> None:
        self._lines.append(line[11:])  # today's date is known

    def refresh(self) -> None:
        self._live.update(self._render(), refresh=True)

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def stop(self) -> None:
        self.refresh()
        self._live.stop()

    def _render(self) -> Group:
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        facts, tally = self._facts, self._tally
        head = Table.grid(padding=(0, 2))
        head.add_column(style="bold")
        head.add_column(overflow="fold")
        for name, value in (
            ("broker", facts.broker),
            ("watch it", facts.watch),
            ("config", f"{facts.config}  (c shows it, q ends)"),
            ("agent", f"{facts.agent}: {tally.agent_state}"),
        ):
            head.add_row(name, Text(value))
        table = Table(box=box.SIMPLE_HEAD, expand=True, padding=(0, 1), pad_edge=False)
        table.add_column("device", no_wrap=True)
        table.add_column("state", no_wrap=True)
        for name in ("readings", "lost", "dup", "faults"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("last reading", ratio=1, overflow="ellipsis", no_wrap=True)
        for name, device in tally.devices.items():
            table.add_row(
                name,
                Text(device.state, style="green" if device.state == "online" else "red"),
                str(device.received),
                _count(device.lost, "bold red"),
                _count(device.duplicates, "bold red"),
                _count(device.faults, "yellow"),
                Text(compact(device.fields)),
            )
        parts: list[Any] = [head, table]
        if tally.last_fault:
            parts.append(
                Text(f"last corrupt line: {tally.last_fault}", style="yellow", overflow="ellipsis", no_wrap=True)
            )
        for title, lines in (("arrived at the broker", self._messages), ("the agent's log", self._lines)):
            parts.append(Text(title, style="bold"))
            parts += [Text(f"  {line}", style="dim", overflow="ellipsis", no_wrap=True) for line in lines]
        return Group(*parts)


def _count(number: int, style: str) -> Any:
    from rich.text import Text

    return Text(str(number), style=style if number else "")


class Keys:
    """Single keys from the terminal, while it lasts; Ctrl-C stays what it is."""

    def __init__(self, on_key: Callable[[str], object]) -> None:
        self._on_key = on_key
        self._before: list[Any] | None = None

    def start(self) -> bool:
        """Whether there is a terminal to read from."""
        # A background job that touched the terminal would be stopped by SIGTTOU.
        if not sys.stdin.isatty() or os.tcgetpgrp(0) != os.getpgrp():
            return False
        self._before = termios.tcgetattr(0)
        tty.setcbreak(0, termios.TCSADRAIN)
        return True

    def fileno(self) -> int:
        return 0

    def read(self) -> None:
        for key in os.read(0, 64).decode(errors="replace"):
            self._on_key(key)

    def stop(self) -> None:
        if self._before is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, self._before)
            self._before = None
