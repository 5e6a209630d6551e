"""One simulated board: the parts of a real agent, put together as ``app`` does, but many of them on one event manager.

Its outbox is never started, and so has neither a file nor a thread: readings wait in memory alone, and their numbers
begin at 1. What belongs to a process and not to an agent is left out: signals, systemd, the control socket, hotplug.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from agent.clock import Clock
from agent.codec import OFFLINE, ONLINE, Topics
from agent.codec_formats import make_codec
from agent.commands import Commands
from agent.events import EventManager
from agent.hotplug import PathWatch
from agent.info import info
from agent.model import Channel, Reading
from agent.mqtt import Link
from agent.mqtt_settings import MqttSettings
from agent.outbox import Outbox
from agent.outbox_settings import OutboxSettings
from agent.publisher import Publisher
from agent.simulate_count import Sums, Tally
from agent.simulate_devices import SimulatedConfig, SimulatedDriver
from agent.status import StatusReport
from agent.supervisor import Supervisor

STATUS_INTERVAL = 30.0
"""Seconds, as ``status.interval`` has by default: reports are a part of what a broker has to carry."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What all boards have in common. paths: watches nothing; a real one would cost an inotify instance for each."""

    manager: EventManager
    clock: Clock
    paths: PathWatch
    log: logging.Logger
    tally: Tally


class TimedOutbox(Outbox):
    """Notes how long each reading took from its stamp to its acknowledgement."""

    def __init__(self, shared: Shared, settings: OutboxSettings, agent: str) -> None:
        super().__init__(shared.manager, settings, shared.clock, agent=agent, log=shared.log)
        self._mono_ns = shared.clock.mono_ns
        self._times = shared.tally.acknowledging

    def ack(self, readings: Iterable[Reading]) -> None:
        readings = list(readings)
        now = self._mono_ns()
        for reading in readings:
            self._times.add((now - reading.mono_ns) / 1e9)
        super().ack(readings)


class Board:
    """An agent with so many devices. phase: seconds after its start at which the first of them reads."""

    def __init__(
        self,
        shared: Shared,
        agent: str,
        settings: MqttSettings,
        outbox: OutboxSettings,
        *,
        devices: int,
        interval: float,
        phase: float,
    ) -> None:
        self._shared = shared
        self._agent = agent
        self._count = devices
        self._interval = interval
        self._phase = phase
        manager, clock, log = shared.manager, shared.clock, shared.log
        self.topics = Topics(agent, settings.base)
        self.outbox = TimedOutbox(shared, outbox, agent)
        self.link = Link(
            manager,
            settings,
            client_id=f"outstation-{agent}",
            will=(self.topics.availability, OFFLINE),
            log=log,
        )
        self.publisher = Publisher(
            manager,
            self.link,
            self.outbox,
            make_codec(settings.format, agent, self.topics, self._channels),
            self.topics,
            settings,
            clock,
            log=log,
        )
        self.supervisor = Supervisor(
            manager,
            clock,
            sink=self.publisher.accept,
            next_seq=self.outbox.next_seq,
            on_state=self._device_state,
            paths=shared.paths,
        )
        self.outbox.on_block = self.supervisor.block
        self.commands = Commands(
            self.topics, self.supervisor.devices, subscribe=self.link.subscribe, answer=self.publisher.answer, log=log
        )
        self.link.on_message = lambda message: self.commands.message(*message[:3])
        self.publisher.on_link = self._link_changed
        self.publisher.before_birth = self._report
        self.status = StatusReport(
            agent, manager, clock, self.link, self.outbox, self.publisher, self.supervisor, self.commands
        )
        self._since = 0.0  # when it began to be without a broker
        self._away = shared.tally.connecting

    def start(self) -> None:
        """Connect, and have the devices read."""
        supervisor, publisher = self.supervisor, self.publisher
        for number in range(1, self._count + 1):
            config = SimulatedConfig(
                name=f"device-{number}",
                driver="simulated",
                interval=self._interval,
                phase=(self._phase + self._interval * number / self._count) % self._interval,
            )
            supervisor.add(SimulatedDriver, config)
        publisher.retain(self.topics.availability, ONLINE)
        for name in supervisor.devices:
            supervisor.start_device(name)
            self.commands.listen(name)
        publisher.retain(self.topics.info, info(self._agent, self.status.versions, supervisor.devices))
        self._shared.manager.create_timer_event(STATUS_INTERVAL, self._report, name="status")
        self._since = self._shared.manager.now()
        self.link.start()

    def stop(self, timeout: float, on_stopped: Callable[[], object]) -> None:
        """The clean end of an agent: the last readings, ``offline``, DISCONNECT; within ``timeout`` seconds."""
        self.publisher.on_link = lambda _up: None
        self.supervisor.stop(lambda: self.publisher.drain(timeout, lambda _left: on_stopped()))

    def retained(self) -> list[str]:
        """Topics that it leaves at the broker."""
        topics = self.topics
        return [
            topics.availability,
            topics.status,
            topics.info,
            *(topics.device_availability(name) for name in self.supervisor.devices),
        ]

    def add_to(self, sums: Sums) -> None:
        """Its share of the sums."""
        link, sent = self.link.stats(), self.publisher.stats()
        sums.started += 1
        sums.connected += link.state == "up"
        sums.made += sum(device.counts.readings for device in self.supervisor.devices.values())
        sums.sent += sent.written
        sums.acknowledged += sent.acknowledged
        sums.dropped += sum(self.outbox.dropped.values())
        sums.refused += sent.oversized + sent.refused
        sums.failures += link.failures
        if link.last_error is not None:
            sums.reasons[link.last_error.reason] += 1

    def _channels(self, device: str) -> tuple[Channel, ...]:
        return SimulatedDriver.channels if device in self.supervisor.devices else ()

    def _device_state(self, device: str, online: bool) -> None:
        self.publisher.retain(self.topics.device_availability(device), ONLINE if online else OFFLINE)

    def _report(self) -> None:
        self.publisher.retain(self.topics.status, self.status.encode())

    def _link_changed(self, up: bool) -> None:
        now = self._shared.manager.now()
        if up:
            self._away.add(now - self._since)
            self._away = self._shared.tally.away
        else:
            self._since = now
        self.supervisor.link_changed(up)
