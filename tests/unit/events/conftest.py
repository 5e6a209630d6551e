"""Fixtures of the event manager's tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

import pytest
from events_support import Pipes

from agent.events import EventManager, ManualClock


@pytest.fixture
def manager() -> Iterator[EventManager]:
    """One on the system's clock."""
    with EventManager() as manager:
        yield manager


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def manual(clock: ManualClock) -> Iterator[EventManager]:
    """One whose clock the test moves."""
    with EventManager(clock=clock) as manager:
        yield manager


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    pipes = Pipes()
    yield pipes
    for fd in pipes.fds:
        with suppress(OSError):
            os.close(fd)
