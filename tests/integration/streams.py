"""Real devices on the real loop, without a broker: what a driver's ports do, seen as readings and faults."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from agent.clock import Clock
from agent.driver import Driver
from agent.events import EventManager
from agent.hotplug import PathWatch
from agent.model import Reading
from agent.supervisor import Supervisor

TURNS = 4000
"""Of at most 5 ms each: 20 s until a condition counts as never met."""


class Station:
    """A supervisor on a real loop, which turns only while the test waits for something."""

    def __init__(self) -> None:
        self.manager = EventManager(slow_after=5.0, hang_after=60.0, on_callback_error=self._failed, workers=(1, 2))
        self.paths = PathWatch()
        self.readings: list[Reading] = []
        self.supervisor = Supervisor(
            self.manager,
            Clock(),
            sink=self._sink,
            next_seq=lambda _: len(self.readings),
            on_state=lambda *_: None,
            paths=self.paths,
            rng=random.Random(1),
        )

    def _sink(self, readings: Sequence[Reading]) -> None:
        self.readings += readings

    def _failed(self, event: Any, error: BaseException) -> None:
        if not self.supervisor.callback_failed(event, error):
            raise error

    def add(self, driver: type[Driver], name: str = "d", **options: Any) -> None:
        self.supervisor.add(driver, driver.Config(name=name, driver=driver.__name__.lower(), **options))

    def start(self) -> None:
        self.supervisor.start()

    def until(self, condition: Callable[[], object]) -> None:
        for _ in range(TURNS):
            if condition():
                return
            self.manager.run_once(timeout=0.005)
        raise AssertionError(f"never came: {self.fields()} {self.supervisor.report()}")

    def settle(self, turns: int = 20) -> None:
        """So many turns: for showing that something does not happen."""
        for _ in range(turns):
            self.manager.run_once(timeout=0.005)

    def state(self, name: str = "d") -> str:
        return str(self.supervisor.devices[name].state)

    def fields(self) -> list[dict[str, Any]]:
        return [json.loads(reading.body) for reading in self.readings]

    def values(self) -> list[Any]:
        return [value for fields in self.fields() for value in fields.values()]

    def faults(self, name: str = "d") -> dict[str, int]:
        return {kind: fault.count for kind, fault in self.supervisor.devices[name].counts.faults.items()}

    def stop(self) -> None:
        stopped: list[bool] = []
        self.supervisor.stop(lambda: stopped.append(True))
        self.until(lambda: stopped)


@contextmanager
def station() -> Iterator[Station]:
    made = Station()
    with made.manager:
        try:
            yield made
            made.stop()
        finally:
            made.paths.close()
