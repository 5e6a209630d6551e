"""A reading that is put together of parts, each asked on a worker by itself: one that hangs takes no other with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from agent.driver import Context, Done, Fault, Sample, Value, WorkersBusy
from agent.driver_wanted import Wanted

if TYPE_CHECKING:
    from agent.machine import Part

Ask: TypeAlias = "tuple[Callable[..., Part], *tuple[Any, ...]]"
"""What reads a part, and its arguments."""

ANSWER: Final = 5.0
"""Seconds after which a part counts as hung; a disk that sleeps needs three to spin up."""


class Collection:
    """Collects one reading after another; made anew at each start of its driver."""

    def __init__(self, ctx: Context, parts: Mapping[str, Ask]) -> None:
        """parts: what reads each, by the name that faults give it; it runs on a worker and may block.

        A reading has the fields in their order. The first runs in the device's own lane, the others each in one of
        theirs, so that they do not wait for each other.
        """
        self._ctx = ctx
        self._parts = parts
        self._busy: set[str] = set()
        self._answers: dict[str, Part] | None = None  # of the reading that is being collected
        self._wanted = Wanted()

    def begin(self) -> None:
        """Collect a reading. It goes out when all have answered, at the latest when the next one begins."""
        self._emit()
        if not self._ctx.blocked:
            self._collect()

    def read_now(self, done: Done) -> None:
        """Collect one now, unless one is under way; done is told when it has gone out."""
        self._wanted.by(done)
        if self._answers is None:
            self._collect()

    def _collect(self) -> None:
        self._answers = {}
        for part in self._parts:
            if part in self._busy:
                self._answered(part, ({}, [Fault("timeout", f"{part} has not answered yet")]), late=True)
            else:
                self._ask(part)

    def _ask(self, part: str) -> None:
        self._busy.add(part)
        self._ctx.submit(
            *self._parts[part],
            on_done=partial(self._answered, part),
            on_error=partial(self._silent, part),
            timeout=ANSWER,
            lane="" if part == next(iter(self._parts)) else part,
        )

    def _answered(self, part: str, answer: Part, *, late: bool = False) -> None:
        if not late:
            self._busy.discard(part)
        if self._answers is not None and part not in self._answers:
            self._answers[part] = answer
            if len(self._answers) == len(self._parts):
                self._emit()

    def _silent(self, part: str, error: BaseException) -> None:
        self._busy.discard(part)
        if isinstance(error, WorkersBusy):
            self._answered(part, ({}, [Fault("unreadable", str(error))]))
        elif isinstance(error, TimeoutError):
            self._answered(part, ({}, [Fault("timeout", f"{part} did not answer within {ANSWER:g} s")]))
            self._ask(part)  # waits in its lane until the call that hangs has returned, and so tells when it has
        else:
            raise error

    def _emit(self) -> None:
        answers, self._answers = self._answers, None
        fields: dict[str, Value] = {}
        faults: list[Fault] = []
        for part in self._parts:
            more, wrong = (answers or {}).get(part, ({}, []))
            fields |= more
            faults += wrong
        if fields:
            self._ctx.emit(Sample(fields), *faults)
        elif faults:
            self._ctx.emit(*faults)
        self._wanted.over()
