"""All devices of the configuration: started together, told of paths that appear, stopped together; one report."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.clock import Clock
from agent.context import Counts
from agent.device import Device
from agent.device_surroundings import Surroundings
from agent.driver import DeviceConfig, Driver
from agent.events import EventManager, SocketEvent
from agent.hotplug import PathWatch
from agent.model import Reading

if TYPE_CHECKING:
    from agent.parsing import ParsingHost


class Supervisor:
    """Keeps every device at work, and a bad one from the others."""

    def __init__(
        self,
        manager: EventManager,
        clock: Clock,
        *,
        sink: Callable[[Sequence[Reading]], object],
        next_seq: Callable[[str], int],
        on_state: Callable[[str, bool], object],
        paths: PathWatch,
        rng: random.Random | None = None,
        parsing: ParsingHost | None = None,
        state_file: Callable[[str], Path | None] = lambda _: None,
    ) -> None:
        """sink takes the readings of one device, in order; on_state is told of every device that comes or goes;
        state_file names the file in which a device keeps what its driver saves, None for no file.
        """
        self._env = Surroundings(
            manager,
            clock,
            sink,
            next_seq,
            on_state,
            paths,
            rng or random.Random(),
            parsing=parsing,
            state_file=state_file,
        )
        self.parsing = parsing
        self.devices: dict[str, Device] = {}
        self._counts: dict[str, Counts] = {}  # of those that were removed
        self._path_event: SocketEvent | None = None
        self._stopping = False

    def add(self, driver: type[Driver], config: DeviceConfig) -> None:
        """Also one that was removed before: what it has counted, and its last time stamp, go on."""
        device = self.devices[config.name] = Device(self._env, driver, config)
        device.counts = self._counts.pop(config.name, device.counts)

    def start(self) -> None:
        self._path_event = self._env.manager.create_socket_event(
            self._env.paths, on_readable=self._path_changed, name="hotplug"
        )
        for device in self.devices.values():
            # A callback each: forty devices on a slow board shall not hold the loop in one piece.
            self._env.manager.call_soon(self._start, device)

    def remove(self, name: str, on_removed: Callable[[], object]) -> None:
        """Stop a device for good; on_removed is called when all that it read is handed on and its port is closed."""
        device = self.devices[name]

        def removed() -> None:
            if self.devices.get(name) is device:
                del self.devices[name]
            self._counts[name] = device.counts
            on_removed()

        device.stop(removed)

    def start_device(self, name: str) -> None:
        """Start one that was added while the others run."""
        self._start(self.devices[name])

    def _start(self, device: Device) -> None:
        if not self._stopping:
            device.start()

    def block(self, blocked: bool) -> None:
        """The outbox is full: read no device until there is room again. Their ports stay open, and hold what comes."""
        self._env.blocked = blocked
        for device in self.devices.values():
            device.block(blocked)

    def link_changed(self, up: bool) -> None:
        """The broker is there, or gone: some outputs fall back without one."""
        self._env.link_up = up
        for device in self.devices.values():
            device.link_changed(up)

    def stop(self, on_stopped: Callable[[], object]) -> None:
        """Stop all devices; on_stopped is called once all that was read has been parsed and handed on."""
        self._stopping = True
        if self._path_event is not None:
            self._path_event.cancel()
        left = set(self.devices)

        def stopped(name: str) -> None:
            left.discard(name)
            if not left:
                self._env.paths.close()
                on_stopped()

        if not left:
            stopped("")
        for name, device in self.devices.items():
            device.stop(partial(stopped, name))

    def callback_failed(self, event: Any, error: BaseException) -> bool:
        """For EventManager's on_callback_error: True if the event was a driver's, whose device then is opened anew."""
        owner = self._env.owners.get(event)
        if owner is None:
            return False
        owner.failed(error)
        return True

    @property
    def hotplug_degraded(self) -> str | None:
        """Why some port's coming may go unseen, so that it is taken at the next retry only; None if none does."""
        return self._env.paths.degraded

    def report(self) -> dict[str, Any]:
        """Every device's part of the status report."""
        now_ns = self._env.clock.mono_ns()
        return {name: device.report(now_ns) for name, device in self.devices.items()}

    def _path_changed(self) -> None:
        for name in self._env.paths.read():
            if name in self.devices:
                self.devices[name].appeared()
