"""A driver of one chip that the kernel reads: found anew before each round, as its number may have changed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from agent.driver import Context, Fault, Sample
from agent.driver_worker import WorkerConfig, WorkerDriver, items


class ChipDriver(WorkerDriver):
    """The chip is one piece; an answer is what ``items`` takes beside the rules."""

    root: ClassVar[Path] = Path("/sys")

    def __init__(self, config: WorkerConfig, ctx: Context) -> None:
        super().__init__(config, ctx)
        self._rules = config.field_rules()

    @classmethod
    def shares(cls, config: Any) -> str | None:  # noqa: ARG003
        return None  # the kernel has it open, and serves everybody

    @abstractmethod
    def chip(self) -> Path:
        """Its folder. Raises PortError where it is not there, or two fit."""

    def find(self) -> Sequence[str]:
        return [str(self.chip())]

    def answered(self, piece: str, answer: Any) -> Iterable[Sample | Fault]:  # noqa: ARG002
        return items(self._rules, *answer)
