"""A serial device that keeps a record of its own: each line has a number, and we know when it was written and read."""

from __future__ import annotations

import os
import select
import time
from dataclasses import dataclass
from pathlib import Path

from chaos_judge import Line
from chaos_shims import Reads

from agent.testing.pty import Pty
from bench import common

FULL = 10.0
"""Seconds that a line may stay full: the agent has stopped to read it."""


@dataclass(frozen=True, slots=True)
class _Record:
    number: int
    pts: int
    end: int
    """Where its last byte stands among all that was, and will be, read of that pty."""
    written: float
    turn: int
    """Which ``begin`` it follows."""


class Device(Pty):
    """Numbered lines of JSON on a pty. It is silent but where ``begin`` said that somebody reads."""

    def __init__(self, path: Path, reads: Reads) -> None:
        super().__init__(path)
        self.reads = reads
        self.number = 0
        """Of the next line."""
        self.cut: list[int] = []
        """Numbers of lines that were cut in two."""
        self._records: list[_Record] = []
        self._pts = -1
        self._base = 0
        self._limits: list[int] = []  # by turn: how far the pty had been read when the next turn began
        self._turn = -1
        self._tail = b""

    def plug(self) -> None:
        self.replug()
        self._pts = int(os.readlink(self.path).rpartition("/")[2])

    def pull(self) -> None:
        """Unplug it; ``plug`` makes a new one at the same path."""
        self.unplug()
        self._end_turn()

    def opened(self) -> bool:
        """Whether a program has opened the port and discarded old input, since ``plug`` or ``closed``."""
        self.read()
        return self.ready

    def closed(self) -> None:
        """Whoever had it open is dead: the next one will open it anew."""
        self.read()
        self.ready = False

    def begin(self) -> None:
        """From now on somebody reads: what was sent before and is unread was discarded when the port was opened."""
        self._end_turn()
        self._turn += 1
        self._base = self.reads.total(self._pts)
        tail, self._tail = self._tail, b""
        if tail:
            self._send(tail)

    def _end_turn(self) -> None:
        """What is unread now will never be read: later bytes of that pty are not those of lines of this turn."""
        if len(self._limits) == self._turn:
            self._limits.append(self.reads.total(self._pts))

    def line(self) -> None:
        """Send the next line."""
        self._send(self._text(self.number))
        self._note(self.number, self._base, time.monotonic())
        self.number += 1

    def _note(self, number: int, end: int, written: float) -> None:
        self._records.append(_Record(number, self._pts, end, written, self._turn))

    def half_line(self) -> None:
        """Send the first half of the next line; the other half follows when somebody reads again."""
        text = self._text(self.number)
        self._send(text[: len(text) // 2])
        self._tail = text[len(text) // 2 :]
        self.cut.append(self.number)
        self.number += 1

    def run(self, seconds: float, rate: float) -> None:
        """Lines for so long, so many a second, each at its own time."""
        begin = time.monotonic()
        for turn in range(round(seconds * rate)):
            common.sleep_until(begin + turn / rate)
            self.line()

    def flood(self, count: int) -> None:
        """So many lines as fast as they are read."""
        step = 40  # what a pty holds of them
        for start in range(0, count, step):
            numbers = range(self.number, self.number + min(step, count - start))
            texts = [self._text(number) for number in numbers]
            end = self._base
            self._send(b"".join(texts))
            now = time.monotonic()
            for number, text in zip(numbers, texts, strict=True):
                end += len(text)
                self._note(number, end, now)
            self.number += len(texts)

    def all_read(self) -> bool:
        return self.reads.total(self._pts) >= self._base

    def lines(self) -> list[Line]:
        """All lines but those that were cut, with the moment of their reading."""
        return [Line(r.number, r.written, self._when(r)) for r in self._records]

    def _when(self, record: _Record) -> float | None:
        if record.turn < len(self._limits) and record.end > self._limits[record.turn]:
            return None
        return self.reads.when(record.pts, record.end)

    @staticmethod
    def _text(number: int) -> bytes:
        return common.body(number).encode() + b"\n"

    def _send(self, data: bytes) -> None:
        self._base += len(data)
        while data:
            data = data[self.write(data) :]
            if data and not select.select([], [self], [], FULL)[1]:
                raise TimeoutError(f"nobody has read {self.path} for {FULL} s")
