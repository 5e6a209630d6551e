"""A command of ours that runs beside the cluster: its lines as they come, its end."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from cluster_nodes import ClusterError

ROOT = Path(__file__).resolve().parents[2]


class Followed:
    """``outstation COMMAND ... --json``: progress on standard error, one object on standard output at its end."""

    def __init__(self, *words: str, log: Path) -> None:
        self._name = words[0]
        self._log = log.open("wb", buffering=0)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OUTSTATION_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "agent", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**environment, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
        )
        self._half = b""
        self._lines: list[str] = []
        self._at = 0.0
        self.last = ""

    @property
    def clock(self) -> float:
        """When the last line came, in seconds."""
        return self._at

    def forget(self) -> None:
        """What was said until now does not count."""
        self._lines.clear()

    def wait_for(
        self,
        condition: Callable[[str], object],
        what: str,
        *,
        of: Callable[[str], str] = str,
        timeout: float = 120.0,
    ) -> None:
        """Until a line, or what ``of`` takes of it, meets the condition. Raises ClusterError."""
        deadline = time.monotonic() + timeout
        while True:
            while self._lines:
                if condition(of(self._lines.pop(0))):
                    return
            self._read(deadline, what)

    def steady(self, seconds: float) -> None:
        """Follow it for so long, by its lines."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._lines.clear()
            self._read(until + 60.0, "it goes on")

    def _read(self, deadline: float, what: str) -> None:
        assert self._process.stderr is not None
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([self._process.stderr], [], [], left)[0]:
            raise ClusterError(f"{self._name}: waited in vain until {what}; its last line: {self.last}")
        data = os.read(self._process.stderr.fileno(), 65536)
        if not data:
            raise ClusterError(f"{self._name} ended while we waited until {what}; its last line: {self.last}")
        self._log.write(data)
        *lines, self._half = (self._half + data).split(b"\n")
        self._lines += [line.decode(errors="replace") for line in lines]
        self._at = time.monotonic()
        self.last = self._lines[-1] if self._lines else self.last

    def end(self) -> str:
        """SIGINT, as Ctrl-C. What it says on standard output."""
        self._process.send_signal(signal.SIGINT)
        out, _ = self._process.communicate(timeout=60)
        return out.decode()

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
        self._log.close()
