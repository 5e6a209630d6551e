"""FakeGpio keeps the contract that the real kernel keeps (kernel.py)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import pytest
from contract import Contract

from agent.driver import GpioLine
from agent.testing import FakeGpio


class FakeWorld:
    def __init__(self) -> None:
        self._ticks = count()

    def open(self, lines: Sequence[GpioLine]) -> FakeGpio:
        self._port = FakeGpio("fake", lines, now_ns=lambda: next(self._ticks))
        return self._port

    def drive(self, offset: int, high: bool) -> None:
        self._port.drive(offset, high)

    def level(self, offset: int) -> bool:
        return self._port.level(offset)

    def remove(self) -> None:
        self._port.remove()


@pytest.fixture
def world() -> FakeWorld:
    return FakeWorld()


class TestFake(Contract):
    """The contract, on the fake."""
