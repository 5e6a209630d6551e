"""The configuration read again while the agent runs: what changed is stopped and started, all else goes on.

Devices can change at run time. The rest (link, outbox, loop) is what every reading passes through; what has changed
there is named, and waits for a restart.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from agent.config import SECTIONS, Config, Device
from agent.control import Answer
from agent.errors import ConfigError
from agent.events import EventManager, WorkRejected
from agent.logline import line
from agent.supervisor import Supervisor

if TYPE_CHECKING:
    from agent.plan import Kinds

STOP_TIMEOUT = 2.0
"""Seconds that new devices wait for the ports of those that stop."""
LOAD_TIMEOUT = 30.0
"""Seconds for reading the files: they may lie on a network's file system."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What a new configuration changes. Devices by name; ``restart``: keys outside of devices, "mqtt.urls"."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    restart: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


def difference(old: Config, new: Config) -> Difference:
    """What has to be done to come from one to the other. Pure."""
    before = {device.config.name: device for device in old.devices}
    after = {device.config.name: device for device in new.devices}
    restart = [
        f"{name}.{key}"
        for name, model in SECTIONS.items()
        for key in model.model_fields
        if getattr(getattr(old, name), key) != getattr(getattr(new, name), key)
    ]
    return Difference(
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        changed=tuple(name for name in after if name in before and after[name] != before[name]),
        restart=tuple(restart),
    )


class Numbers(Protocol):
    """What is asked of the outbox."""

    @property
    def reserve(self) -> Callable[[list[str], Callable[[], object]], object]: ...


class Reloader:
    """Reads the files on a worker, and applies what they say. One at a time; what is asked for meanwhile comes after.

    load: reads them; raises ConfigError. on_change: called when the devices that left are stopped and the new ones are
    known, before these start. on_done: called at the end, with what was wrong, or None. kinds: what channels
    have turned out to be, by device.
    """

    def __init__(
        self,
        manager: EventManager,
        config: Config,
        load: Callable[[], Config],
        supervisor: Supervisor,
        numbers: Numbers,
        *,
        on_change: Callable[[Difference], object],
        on_done: Callable[[str | None], object],
        kinds: Callable[[], Kinds] = dict,
        log: logging.Logger | None = None,
    ) -> None:
        self.config = config
        """What runs: the sections of the start, and the devices of now."""
        self.load = load
        self._manager = manager
        self._supervisor = supervisor
        self._numbers = numbers
        self._on_change = on_change
        self._on_done = on_done
        self._kinds = kinds
        self._log = log or logging.getLogger("outstation.reload")
        self._busy = True  # until ``ready``
        self._again = self._ended = False
        self._askers: list[Answer] = []  # of the reload that is under way ...
        self._waiting: list[Answer] = []  # ... and of the next one

    def ready(self) -> None:
        """The agent has started: devices may come and go."""
        self._busy = False
        if self._again:
            self._again = False
            self.request()

    def request(self, answer: Answer | None = None) -> None:
        """Reload now, or once the present one is through. answer: gets what was changed, or why nothing was."""
        if answer is not None:
            self._waiting.append(answer)
        if self._ended:
            self._tell(None, "the agent is stopping")
            return
        if self._busy:
            self._again = True
            return
        self._busy = True
        self._askers, self._waiting = self._waiting, []
        try:
            self._manager.execute_work(
                self.load, on_done=self._loaded, on_error=self._refused, timeout=LOAD_TIMEOUT, name="config.load"
            )
        except WorkRejected as full:
            self._refused(full)

    def plan(self, answer: Answer) -> None:
        """Only say what a reload would change."""
        self._look(_planned, answer)

    def running(self, answer: Answer) -> None:
        """Say what runs, for whoever has another file to compare with it."""
        self._look(_running, answer)

    def _look(self, look: Callable[[Callable[[], Config], Config, Kinds], Any], answer: Answer) -> None:
        kinds = {device: dict(found) for device, found in self._kinds().items()}  # the loop's own may grow meanwhile
        try:
            self._manager.execute_work(
                look,
                self.load,
                self.config,
                kinds,
                on_done=lambda found: answer(found, None),
                on_error=lambda error: answer(None, _problems(error)[0]),
                timeout=LOAD_TIMEOUT,
                name="config.load",
            )
        except WorkRejected as full:
            answer(None, str(full))

    def end(self) -> None:
        """The agent stops: nothing is changed any more."""
        self._ended = True
        self._tell(None, "the agent is stopping")

    def _tell(self, change: Difference | None, problem: str | None) -> None:
        askers = self._askers + (self._waiting if self._ended else [])
        self._askers = []
        for answer in askers:
            answer(None if change is None else asdict(change), problem)

    def _refused(self, error: BaseException) -> None:
        """Nothing has changed."""
        problems = _problems(error)
        self._log.error(line("config.refused", problems=len(problems), reason="nothing was changed"))
        for problem in problems:
            self._log.error(line("config.problem", reason=problem))
        self._done(None, problems[0])

    def _loaded(self, new: Config) -> None:
        if self._ended:
            return
        change = difference(self.config, new)
        if change.restart:
            self._log.warning(
                line("config.restart_needed", keys=",".join(change.restart), reason="they change with a restart only")
            )
        if not change:
            self._log.info(line("config.unchanged", devices=len(new.devices)))
            self._done(change, None)
            return
        leaving = {*change.removed, *change.changed}
        proceed = partial(self._stopped, new, change)
        timer = self._manager.create_timer_event(
            STOP_TIMEOUT, self._late, leaving, proceed, repeat=False, name="reload.stop"
        )

        def stopped(name: str) -> None:
            leaving.discard(name)
            if not leaving and timer.active:
                timer.cancel()
                proceed()

        if not leaving:
            stopped("")
        for name in tuple(leaving):
            self._supervisor.remove(name, partial(stopped, name))

    def _late(self, leaving: set[str], proceed: Callable[[], object]) -> None:
        self._log.warning(line("reload.late", devices=",".join(sorted(leaving)), after_s=STOP_TIMEOUT))
        proceed()

    def _stopped(self, new: Config, change: Difference) -> None:
        """Their ports are free: the new ones get their numbers, then begin."""
        coming = [*change.changed, *change.added]
        self._numbers.reserve(coming, partial(self._begin, new, change, coming))

    def _begin(self, new: Config, change: Difference, coming: list[str]) -> None:
        if self._ended:
            return
        devices: dict[str, Device] = {device.config.name: device for device in new.devices}
        for name in coming:
            self._supervisor.add(*devices[name])
        self.config = self.config.with_devices(new.devices)
        self._on_change(change)
        for name in coming:
            self._supervisor.start_device(name)
        self._log.info(
            line(
                "config.reloaded",
                added=",".join(change.added) or None,
                removed=",".join(change.removed) or None,
                changed=",".join(change.changed) or None,
                untouched=len(new.devices) - len(coming),
            )
        )
        self._done(change, None)

    def _done(self, change: Difference | None, problem: str | None) -> None:
        self._tell(change, problem)
        self._on_done(problem)
        self.ready()


def _problems(error: BaseException) -> list[str]:
    return [str(problem) for problem in error.problems] if isinstance(error, ConfigError) else [str(error)]


def _planned(load: Callable[[], Config], config: Config, kinds: Kinds) -> dict[str, Any]:
    from agent.plan import compare, side  # a command alone asks for it

    return compare(side(config, kinds), side(load(), kinds))


def _running(_load: Callable[[], Config], config: Config, kinds: Kinds) -> dict[str, Any]:
    from agent.plan import side

    return {"side": side(config, kinds), "kinds": kinds}
