"""A sensor that may sleep between two questions: woken some time before one, sent to sleep after the answer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Self

from pydantic import Field, model_validator

from agent.driver import Done, PollConfig, PollDriver
from agent.quantity import Interval


class SleeperConfig(PollConfig):
    """What a device may say whose fan and laser wear while they run."""

    sleep: bool = Field(False, description="If it is asked: fan and laser rest between two questions.")
    warm_up: Interval = Field(30.0, description="sleep: seconds from waking to the question, for a steady air flow.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for wrong in self.wrong():
            raise ValueError(wrong)
        return self

    def wrong(self) -> Iterator[str]:
        """What does not go together, the worst first; for a driver to extend."""
        if self.sleep and self.interval <= self.warm_up + self.answer_timeout:
            yield f"sleep needs an interval above warm_up + answer_timeout, {self.warm_up:g} s and more"


class SleeperDriver(PollDriver):
    """Asks as ``PollDriver`` does; with ``sleep`` it wakes the sensor ``warm_up`` before each question.

    It rests after ``answer_timeout``, answered or not. While nobody would take a reading it is left asleep.
    """

    @abstractmethod
    def wake(self) -> bytes:
        """The command that starts fan and laser."""

    @abstractmethod
    def rest(self) -> bytes:
        """The command that stops them."""

    def read_now(self, done: Done) -> None:
        if self.config.sleep:
            done(f"it sleeps between its readings, and tells the truth {self.config.warm_up:g} s after it was woken")
        else:
            super().read_now(done)

    def poll(self) -> None:
        if not self.config.sleep:
            super().poll()
        elif not self.ctx.blocked:
            self._port.write(self.wake())
            self.ctx.after(self.config.warm_up, super().poll, name="ask")
            self.ctx.after(self.config.warm_up + self.config.answer_timeout, self._rest, name="sleep")

    def _rest(self) -> None:
        self._port.write(self.rest())
