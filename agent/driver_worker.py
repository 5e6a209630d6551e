"""A driver that asks what may block (a file of the kernel behind which a bus is) once an interval, on a worker.

One round: look what there is, then read one piece after another, each a piece of work of its own, so that other
devices' work comes in between. Only then may the next round begin: what hangs is asked once, not once an interval.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final, Literal

from pydantic import ConfigDict, Field, field_validator

from agent.driver import Channel, DeviceConfig, Done, Driver, Fault, Port, Sample, Value, WorkersBusy
from agent.fields import ChannelSettings, FieldError, FieldRules
from agent.quantity import Interval

ANSWER: Final = 5.0
"""Seconds after which a piece counts as hung: six conversions of a DS18B20, the slowest sensor of the kernel's."""


class WorkerConfig(DeviceConfig):
    """How often it is read, and what is known of its channels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    interval: Interval = Field(10.0, description="Time between two readings.")
    channels: dict[str, ChannelSettings] = Field(
        {}, description="What is known of channels, by the names that they have without it."
    )
    others: Literal["keep", "drop"] = Field("keep", description="Channels that do not stand in channels.")

    @field_validator("channels")
    @classmethod
    def _distinct(cls, channels: dict[str, ChannelSettings]) -> dict[str, ChannelSettings]:
        FieldRules(channels, default="number")
        return channels

    def field_rules(self) -> FieldRules:
        """What becomes of what is read: names, scales, limits."""
        return FieldRules(self.channels, default="auto", others=self.others == "keep")

    def described(self, found: Iterable[Channel]) -> tuple[Channel, ...]:
        """The channels that were found, under the names and units that they are given."""
        described = []
        for channel in found:
            if channel.name in self.channels:
                known = self.channels[channel.name]
                described.append(
                    Channel(
                        known.name or channel.name,
                        known.unit or channel.unit,
                        known.low,
                        known.high,
                        known.device_class or channel.device_class,
                        known.state_class or channel.state_class,
                    )
                )
            elif self.others == "keep":
                described.append(channel)
        return tuple(described)


def items(rules: FieldRules, fields: Mapping[str, Value], faults: Iterable[Fault] = ()) -> list[Sample | Fault]:
    """One Sample of what is good, and a Fault for each value that is not."""
    if not fields:
        return [*faults]
    try:
        good, bad = rules.apply_partly({**fields})
    except FieldError as error:
        return [Fault(error.kind, error.detail), *faults]
    more = [*faults, *(Fault(error.kind, error.detail) for error in bad)]
    return [Sample(good), *more] if good else [*more]


def _last() -> None:
    """The last piece of a round: nothing to do."""


class WorkerDriver(Driver):
    """Asks piece by piece, on a worker. Pieces are named; of a chip that is read as a whole there is one."""

    Config: ClassVar[type[DeviceConfig]] = WorkerConfig

    @abstractmethod
    def find(self) -> Sequence[str]:
        """On a worker: the pieces that are there now. Raises PortError if there is nothing to read."""

    @abstractmethod
    def ask(self, piece: str) -> Any:
        """On a worker: read one piece. An OSError is a Fault of kind "unreadable"."""

    @abstractmethod
    def answered(self, piece: str, answer: Any) -> Iterable[Sample | Fault]:
        """On the loop's thread: what the answer says."""

    def open(self) -> None:
        self.find()

    def start(self, port: Port | None) -> None:  # noqa: ARG002
        self._busy = False
        self.ctx.every(self.config.interval, self._round, first_after=0.0, name="round")

    def read_now(self, done: Done) -> None:
        self.wanted.by(done)
        if not self._busy:
            self._round()

    def _round(self) -> None:
        if self._busy:
            self.ctx.emit(Fault("timeout", "what was asked an interval ago has not answered yet"))
        elif not self.ctx.blocked:
            self._busy = True
            self.ctx.submit(self.find, on_done=self._found, on_error=self._not_found)

    def _not_found(self, error: BaseException) -> None:
        self._busy = False
        if not isinstance(error, WorkersBusy):
            raise error
        self.ctx.emit(Fault("unreadable", str(error)))
        self.wanted.over()

    def _found(self, pieces: Sequence[str]) -> None:
        for piece in pieces:
            self.ctx.submit(
                self.ask,
                piece,
                on_done=partial(self._answered, piece),
                on_error=partial(self._failed, piece),
                timeout=ANSWER,
            )
        # A device's pieces run in order: this one when all have answered, those that were given up included.
        self.ctx.submit(_last, on_done=self._over, on_error=self._over)

    def _answered(self, piece: str, answer: Any) -> None:
        self.ctx.emit(*self.answered(piece, answer))

    def _failed(self, piece: str, error: BaseException) -> None:
        if isinstance(error, TimeoutError):
            self.ctx.emit(Fault("timeout", f"{piece} did not answer within {ANSWER:g} s"))
        elif isinstance(error, OSError):
            self.ctx.emit(Fault("unreadable", f"{piece}: {error.strerror or error}"))
        elif isinstance(error, WorkersBusy):
            self.ctx.emit(Fault("unreadable", f"{piece}: {error}"))
        else:
            raise error

    def _over(self, _: object) -> None:
        self._busy = False
        self.wanted.over()
