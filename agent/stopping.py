"""The clean end, in its order: devices, then what their parsers hold, then the link, then the disk.

Each step has its part of ``stop_timeout``: whoever is late is named and passed over, so that those behind have theirs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from agent.config import Config
from agent.events import EventManager, TimerEvent
from agent.logline import line
from agent.outbox import Outbox
from agent.publisher import Publisher
from agent.supervisor import Supervisor

KEEP_SECONDS = 1.0
"""Of ``stop_timeout``, for the disk to take what is left: ten times what a slow SD card needs for a full group."""

PARSE_SHARE = 0.5
"""The part of ``stop_timeout`` that parsers may take to finish; the rest is for what waits for the broker."""

ONE_BREATH = 0.5
"""Seconds in which a second signal is still the first one: timeout(1), and shells under Ctrl-C, send it to the process
and to its group, and nobody meant to give the clean end up."""


class CleanEnd:
    """Stops what brings readings, then what carries them. All of it runs on the loop's thread.

    on_end: called once, when nothing more will be sent or written.
    """

    def __init__(
        self,
        manager: EventManager,
        config: Config,
        supervisor: Supervisor,
        publisher: Publisher,
        outbox: Outbox,
        *,
        on_end: Callable[[], object],
        log: logging.Logger,
    ) -> None:
        self.begun = False
        self._since = 0.0
        self._manager = manager
        self._config = config
        self._supervisor = supervisor
        self._publisher = publisher
        self._outbox = outbox
        self._on_end = on_end
        self._log = log
        self._deadline = 0.0
        self._kept = 0
        self._step: TimerEvent | None = None

    @property
    def insisted(self) -> bool:
        """Whether somebody who says stop now says it a second time, and not twice in one breath."""
        return self._manager.now() - self._since >= ONE_BREATH

    def begin(self) -> None:
        """Once; ``on_end`` follows within ``stop_timeout``."""
        self.begun = True
        self._since = self._manager.now()
        timeout = self._config.agent.stop_timeout
        self._deadline = self._since + timeout
        self._step = self._manager.create_timer_event(
            max(timeout * PARSE_SHARE, 1e-3), self._parsers_late, repeat=False, name="stop.parsers"
        )
        self._supervisor.stop(self._devices_stopped)

    def _parsers_late(self) -> None:
        busy = [name for name, device in self._supervisor.devices.items() if device.state != "stopped"]
        self._log.warning(line("agent.parsers_late", devices=",".join(busy)))
        self._devices_stopped()

    def _devices_stopped(self) -> None:
        if self._step is None:
            return  # they were late, and have been passed over
        self._step.cancel()
        self._step = None
        left = self._deadline - self._manager.now()
        self._publisher.drain(max(0.0, left - min(KEEP_SECONDS, left / 4)), self._drained)

    def _drained(self, left: int) -> None:
        if left and self._config.outbox.durability == "memory":
            self._log.warning(line("agent.unsent", readings=left, reason="the broker did not take them in time"))
        elif left:
            self._kept = left
        self._outbox.stop(self._written, self._deadline - self._manager.now())

    def _written(self) -> None:
        if self._kept and self._outbox.report()["disk"]["reason"] is None:  # else outbox.lost has said what is gone
            self._log.info(line("agent.kept", readings=self._kept, path=self._config.outbox.file()))
        self._on_end()
