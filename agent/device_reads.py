"""Readings that somebody asked for between two intervals: one round for all who ask while it is under way.

What comes goes its normal way, and is looked at on it: before the device's rules, as these may hold it back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import orjson

from agent.codec import encode_fields
from agent.context import DeviceContext
from agent.device_outputs import MOST_PENDING, Pending
from agent.driver import Done, Fault, Sample
from agent.events import EventManager

MOST_READINGS = 256
"""Of one round: a full Modbus bus has 247 units. A command may print more; they are published all the same."""
MOST_FAULTS = 8
"""Of one round, the latest: enough to see why values are missing. The status counts them all."""

Told: TypeAlias = Callable[[dict[str, Any] | None, str | None], object]
"""Is given ``readings`` (fields of each) and ``faults`` (a line each), or else why there is no reading."""


class Round:
    """What comes between a question and its end, and those who wait for it."""

    def __init__(self) -> None:
        self.waiting: dict[Done, None] = {}
        self._readings: list[dict[str, Any]] = []
        self._faults: deque[str] = deque(maxlen=MOST_FAULTS)

    def see(self, items: Iterable[Sample | Fault]) -> None:
        """What the driver emits, in its order."""
        for item in items:
            if isinstance(item, Fault):
                self._faults.append(f"{item.kind}: {item.detail}" if item.detail else item.kind)
                continue
            try:
                fields = orjson.loads(encode_fields(item.fields))
            except ValueError as error:  # the context counts it, and publishes no such reading either
                self._faults.append(f"number: {error}")
                continue
            if len(self._readings) < MOST_READINGS:
                self._readings.append(fields)

    def result(self) -> tuple[dict[str, Any] | None, str | None]:
        """What a ``Told`` is given at the end."""
        if not self._readings:
            return None, "it gave no reading" + (f"; {'; '.join(self._faults)}" if self._faults else "")
        faults = {"faults": list(self._faults)} if self._faults else {}
        return {"readings": self._readings, **faults}, None


class Reads:
    """The round of one device that is under way, if one is."""

    def __init__(self, manager: EventManager, device: str) -> None:
        self._pending = Pending(manager, device, what="read", late="what comes later is published all the same")
        self._round: Round | None = None
        self._ctx: DeviceContext | None = None

    def begin(self, ctx: DeviceContext, within: float, told: Told) -> Done | None:
        """Wait for a round, at most ``within`` seconds. Returns what its driver calls at the end of a new one.

        None: one is under way, and told gets what comes of it; or too many wait, which told has been given.
        """
        joined = self._round
        now = joined or Round()

        def answered(problem: str | None) -> None:
            if waits is not None:
                now.waiting.pop(waits, None)
            if not now.waiting and self._round is now:  # ended, or the last one has given it up
                self._close()
            told(*(now.result() if problem is None else (None, problem)))

        waits = self._pending.begin(answered, within)
        if waits is None:
            told(None, f"{MOST_PENDING} wait for a reading of it already; ask again when one is answered")
            return None
        now.waiting[waits] = None
        if joined is not None:
            return None
        self._round, self._ctx = now, ctx
        ctx.tap = now.see

        def over(problem: str | None = None) -> None:
            for each in list(now.waiting):
                each(problem)

        return over

    def end(self, problem: str) -> None:
        """The device is gone: nothing will come of it any more."""
        self._pending.end(problem)

    def _close(self) -> None:
        if self._ctx is not None:
            self._ctx.tap = None
        self._round = self._ctx = None
