"""Who on a Modbus bus is asked when, and what becomes of the answers. Pure: time is passed in, no byte comes here.

One question at a time, round after round. In each round the units that are well come first, in their order; then, in
the time that is left, those in trouble. A unit that does not answer ends its turn at the first time-out; from then on
it is asked after the others, so that it delays them once, by one time-out. After ``retries`` more it counts as dead and
is asked rarely. Of those in trouble one is asked a round whatever time is left, further ones only if a whole time-out
fits in: so they never cost their neighbours more than one time-out an interval, and nothing if there is time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from agent.modbus import Table, UnitPlan
from agent.model import Fault, Sample, Value

WRITES: Final = 16
"""Writes that may wait for the bus: more than one second's worth at 9600 Bd."""

EXCEPTIONS: Final = {
    0x01: "illegal function",
    0x02: "illegal data address",
    0x03: "illegal data value",
    0x04: "server device failure",
    0x05: "acknowledge: it needs longer",
    0x06: "server device busy",
    0x08: "memory parity error",
    0x0A: "gateway path unavailable",
    0x0B: "gateway target device failed to respond",
}
"""MODBUS Application Protocol V1.1b3, section 7."""
_OF_GATEWAY: Final = (0x0A, 0x0B)  # it is the gateway that speaks: of the unit itself nothing was heard


@dataclass(frozen=True, slots=True)
class Question:
    """One request. count: registers or bits to be read; words: what is to be written, () for a read."""

    unit: int
    table: Table
    address: int
    count: int
    words: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """Registers, or bits as 0 and 1."""

    words: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """An exception response."""

    code: int

    def __str__(self) -> str:
        return EXCEPTIONS.get(self.code, f"exception {self.code}")


@dataclass(frozen=True, slots=True)
class Silence:
    """No answer within the deadline; raw: what came instead, if anything did, and why that is none."""

    why: str = ""
    raw: bytes = b""


@dataclass(frozen=True, slots=True)
class Garbled:
    """Something came, is no answer, and nothing followed it: known long before the deadline."""

    why: str
    raw: bytes = b""


Outcome: TypeAlias = Answer | Refusal | Silence | Garbled


@dataclass(slots=True, eq=False)
class _Unit:
    """A unit's state: its circuit breaker, and when it was asked."""

    plan: UnitPlan
    failures: int = 0  # turns in a row without an answer
    dead: bool = False
    pause: int = 0  # rounds until it is asked again, doubled each time
    due: int = 0  # the round in which it is asked again
    asked_in: int = 0  # the round in which it was asked last
    asked_at: float = 0.0


@dataclass(slots=True)
class _Turn:
    """One unit being read: block after block."""

    unit: _Unit
    block: int = 0
    tries: int = 0
    began: float = 0.0  # when this block was asked for the first time
    fields: dict[str, Value] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Write:
    unit: _Unit
    question: Question
    label: str
    done: Callable[[str | None], object]


class Bus:
    """The units of one bus. Ask what ``next`` says, and tell ``settle`` what came of it."""

    def __init__(
        self, plans: Sequence[UnitPlan], *, interval: float, timeout: float, retries: int = 2, longest: float = 30.0
    ) -> None:
        """Seconds: interval of a round, timeout of a question, longest pause between two questions to a dead unit."""
        self._units = [_Unit(plan) for plan in plans]
        self._interval = interval
        self._timeout = timeout
        self._retries = retries
        self._longest = longest
        self._round = 0
        self._round_ends = 0.0
        self._spent = False  # a unit in trouble was asked in this round
        self._refreshed = False  # all were asked once more in this round, which may be too much for it
        self._due: deque[_Unit] = deque()
        self._turn: _Turn | None = None
        self._writes: deque[_Write] = deque()
        self._asked: tuple[Question, _Write | None] | None = None

    @property
    def dead(self) -> list[str]:
        """Units that do not answer, for people."""
        return [unit.plan.label for unit in self._units if unit.dead]

    def tick(self, now: float) -> list[Fault]:
        """A new round begins. A unit that was not asked in the last one keeps its place before the others."""
        self._round += 1
        self._round_ends = now + self._interval
        self._spent = False
        faults = []
        refreshed, self._refreshed = self._refreshed, False
        if self._due and not refreshed:
            what = f"{len(self._due)} of {len(self._units)} units were not asked within the interval"
            faults.append(Fault("overrun", f"{what}; make it longer, or read less"))
        self._due += [unit for unit in self._units if not unit.failures and unit not in self._due]
        return faults

    def refresh(self) -> bool:
        """Ask every unit that is well now, not in the next round alone. False: there is none.

        Of a unit that is being read, this will do. Those in trouble keep their pauses: they would cost time-outs.
        """
        reading = self._turn.unit if self._turn is not None else None
        well = [unit for unit in self._units if not unit.failures]
        self._due += [unit for unit in well if unit is not reading and unit not in self._due]
        self._refreshed = True
        return bool(well)

    def next(self, now: float) -> Question | None:
        """What to ask now; None: nothing until the next round, or a write. Asked already: settle that first."""
        if self._asked is not None:
            return None
        if self._writes:
            write = self._writes.popleft()
            self._asked = (write.question, write)
            return write.question
        if self._turn is None:
            unit = self._choose(now)
            if unit is None:
                return None
            unit.asked_in, unit.asked_at = self._round, now
            self._turn = _Turn(unit)
        if not self._turn.tries:
            self._turn.began = now
        block = self._turn.unit.plan.blocks[self._turn.block]
        question = Question(self._turn.unit.plan.address, block.table, block.address, block.count)
        self._asked = (question, None)
        return question

    def settle(self, outcome: Outcome, now: float) -> list[Sample | Fault]:
        """What came of the question that ``next`` gave."""
        assert self._asked is not None, "nothing was asked"
        (_, write), self._asked = self._asked, None
        if write is not None:
            return self._written(write, outcome)
        assert self._turn is not None
        turn, unit = self._turn, self._turn.unit
        block = unit.plan.blocks[turn.block]
        match outcome:
            case Answer(words):
                fields, wrong = unit.plan.fields(block, words)
                turn.fields |= fields
                return [*(Fault(each.kind, each.detail) for each in wrong), *self._go_on(turn)]
            case Refusal(code) if code not in _OF_GATEWAY:
                return [Fault("exception", f"{unit.plan.label}: {outcome}, for {block}"), *self._go_on(turn)]
            case Garbled(why, raw):
                turn.tries += 1
                fault = Fault("checksum", f"{unit.plan.label}: {why}, for {block}", raw)
                # Asked again at once, as long as that costs the others little more than a silent unit would.
                again = turn.tries <= self._retries and now - turn.began <= self._timeout / 2
                return [fault] if again else [fault, *self._fail(turn)]
        return [self._no_answer(unit, outcome, str(block)), *self._fail(turn)]

    def write(self, name: str, value: Value, done: Callable[[str | None], object]) -> None:
        """Set a channel, before anything else is asked; done is told None, or why not. It is never tried twice."""
        unit, register = next(
            (unit, register)
            for unit in self._units
            for register in unit.plan.registers
            if register.writable and unit.plan.prefix + register.name == name
        )
        if unit.dead:
            done(
                f"{unit.plan.label} does not answer; it is asked again within {max(self._longest, self._interval):g} s"
            )
        elif len(self._writes) >= WRITES:
            done(f"{WRITES} writes wait already; send the next when one is answered")
        else:
            try:
                words = register.words(value)
            except ValueError as error:
                done(str(error))
                return
            question = Question(unit.plan.address, register.table, register.address, register.count, words)
            self._writes.append(_Write(unit, question, name, done))

    # -- turns ------------------------------------------------------------------------------------------------------

    def _choose(self, now: float) -> _Unit | None:
        if self._due:
            return self._due.popleft()
        troubled = [
            unit
            for unit in self._units
            if unit.failures and unit.asked_in != self._round and (not unit.dead or unit.due <= self._round)
        ]
        if not troubled or (self._spent and now + self._timeout > self._round_ends):
            return None
        self._spent = True
        return min(troubled, key=lambda unit: unit.asked_at)

    def _go_on(self, turn: _Turn) -> list[Sample | Fault]:
        """The unit has answered: the next block, or its reading."""
        turn.block += 1
        turn.tries = 0
        if turn.block < len(turn.unit.plan.blocks):
            return []
        self._turn = None
        return [self._alive(turn.unit, turn.fields)]

    def _alive(self, unit: _Unit, fields: dict[str, Value]) -> Sample:
        unit.failures = 0
        unit.dead = False
        return Sample(unit.plan.ordered(fields | {unit.plan.online: True}))

    def _fail(self, turn: _Turn) -> list[Sample | Fault]:
        """Its turn ends. What was read of it before is true, and goes out."""
        self._turn = None
        unit = turn.unit
        self._failed(unit)
        fields = turn.fields | ({unit.plan.online: False} if unit.dead else {})
        return [Sample(unit.plan.ordered(fields))] if fields else []

    def _failed(self, unit: _Unit) -> None:
        unit.failures += 1
        if unit.failures > self._retries:
            most = max(1, int(self._longest / self._interval))
            unit.pause = min(2 * unit.pause, most) if unit.dead else 1
            unit.due = self._round + unit.pause
            unit.dead = True

    def _no_answer(self, unit: _Unit, outcome: Outcome, what: str) -> Fault:
        if not isinstance(outcome, Silence):
            return Fault("timeout", f"{unit.plan.label}: {outcome}, for {what}")
        but = f" but {outcome.why}" if outcome.raw else ""
        return Fault(
            "timeout", f"{unit.plan.label}: no answer within {self._timeout:g} s{but}, for {what}", outcome.raw
        )

    def _written(self, write: _Write, outcome: Outcome) -> list[Sample | Fault]:
        unit = write.unit
        match outcome:
            case Answer():
                write.done(None)
                # Read back at once: the reading, not the acknowledgement, says what the unit has now.
                if not unit.failures and unit not in self._due and (self._turn is None or self._turn.unit is not unit):
                    self._due.appendleft(unit)
                return []
            case Refusal(code) if code not in _OF_GATEWAY:
                write.done(f"{unit.plan.label} refuses: {outcome}")
                return [Fault("exception", f"{unit.plan.label}: {outcome}, for writing {write.label}")]
        write.done(f"{unit.plan.label} did not confirm it; whether it took effect is not known")
        if isinstance(outcome, Garbled):
            return [Fault("checksum", f"{unit.plan.label}: {outcome.why}, for writing {write.label}", outcome.raw)]
        # It has cost a time-out: no further question to it before the others.
        self._failed(unit)
        if unit in self._due:
            self._due.remove(unit)
        for waiting in [each for each in self._writes if each.unit is unit]:
            self._writes.remove(waiting)
            waiting.done(f"{unit.plan.label} did not answer the write before")
        return [self._no_answer(unit, outcome, f"writing {write.label}")]
