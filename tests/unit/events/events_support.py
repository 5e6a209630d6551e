"""What the event manager's tests share, fixtures (conftest.py) apart."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.events import EventManager

ROOT = Path(__file__).resolve().parents[3]


class Pipes:
    """Pipes that are closed when the test is over, whatever it closed itself."""

    def __init__(self) -> None:
        self.fds: list[int] = []

    def __call__(self, full: bool = False) -> tuple[int, int]:
        r, w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.fds += (r, w)
        if full:
            os.write(w, b"x")
        return r, w


def turn_until(manager: EventManager, condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Turn until the condition holds; fails the test if it does not within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        left = deadline - time.monotonic()
        assert left > 0.0, "the condition did not come true"
        manager.run_once(timeout=min(left, 0.5))


def run_python(code: str, timeout: float = 30.0, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program of its own on this interpreter, with the source tree on its path."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        check=False,
    )


def never(*args: object) -> None:
    """A callback that must not be called. What it raises is no ``Exception``: it ends the loop, and the test."""
    pytest.fail(f"called with {args}")
