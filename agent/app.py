"""The one place where things meet: builds the agent from its configuration, runs it, and stops it in order."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import __version__
from agent.app_fleet import make_fleet
from agent.app_page import make_page
from agent.app_parts import EX_TEMPFAIL, begin_anew, make_requests, parsing_host
from agent.certificate import CertificateWatch
from agent.clock import Clock, Kernel
from agent.clock_watch import StepWatch
from agent.codec import OFFLINE, ONLINE, Topics
from agent.codec_formats import make_codec
from agent.commands import Commands
from agent.config import Config
from agent.control import Control, socket_path
from agent.events import EventManager, SlowCallbackError
from agent.heap import bound_heap
from agent.hotplug import PathWatch
from agent.info import info
from agent.logline import line
from agent.model import Channel, Reading
from agent.mqtt import Link
from agent.mqtt_message import Message
from agent.outbox import Outbox
from agent.publisher import Publisher
from agent.reload import Difference, Reloader
from agent.status import StatusReport
from agent.stopping import CleanEnd
from agent.supervisor import Supervisor
from agent.systemd import Notifier

if TYPE_CHECKING:
    from agent.homeassistant_announcer import Announcer

EX_OK = 0
EX_SOFTWARE = 70
"""sysexits.h: the program ended itself because a callback held the loop (``on_slow = "stop"``)."""

SWITCH_SECONDS = 0.0005
"""A tenth of Python's own: how long a thread that computes keeps the others waiting. A reading's way to the disk is a
dozen such waits while a worker imports or parses something, and `strict` promises 20 ms."""

log = logging.getLogger("outstation.agent")


class Agent:
    """One agent, from its configuration to its exit status."""

    def __init__(
        self, config: Config, environ: Mapping[str, str] = os.environ, load: Callable[[], Config] | None = None
    ) -> None:
        """load: reads the configuration anew; raises ConfigError."""
        self.config = config
        self.manager = EventManager(
            workers=config.loop.workers,
            slow_after=config.loop.slow_after,
            hang_after=config.loop.hang_after,
            on_slow=config.loop.on_slow,
            on_callback_error=self._callback_failed,
        )
        self.clock = Clock(config.clock)
        self.topics = Topics(config.agent.id, config.mqtt.base, config.mqtt.topic)
        self.outbox = Outbox(self.manager, config.outbox, self.clock, agent=config.agent.id)
        self.link = Link(
            self.manager,
            config.mqtt,
            client_id=f"outstation-{config.agent.id}",
            will=(self.topics.availability, OFFLINE),
        )
        self.publisher = Publisher(
            self.manager,
            self.link,
            self.outbox,
            make_codec(config.mqtt.format, config.agent.id, self.topics, self._channels),
            self.topics,
            config.mqtt,
            self.clock,
            replay_rate=config.outbox.replay_rate,
        )
        self.supervisor = Supervisor(
            self.manager,
            self.clock,
            sink=self._accept
            if config.homeassistant.discovery == "on" or config.page.listen
            else self.publisher.accept,
            next_seq=self.outbox.next_seq,
            on_state=self._device_state,
            paths=PathWatch(),
            parsing=parsing_host(config),
            state_file=self._state_file,
        )
        self.outbox.on_block = self.supervisor.block
        self.commands = Commands(
            self.topics, self.supervisor.devices, subscribe=self.link.subscribe, answer=self.publisher.answer
        )
        self.link.on_message = self._message
        self.announcer = self._make_announcer()
        self.publisher.on_link = self.supervisor.link_changed
        self.notifier = Notifier(environ)
        self.status = StatusReport(
            config.agent.id,
            self.manager,
            self.clock,
            self.link,
            self.outbox,
            self.publisher,
            self.supervisor,
            self.commands,
        )
        self.certificate = CertificateWatch(self.manager, self.clock, config.mqtt.cert_file)
        self.status.certificate = self.certificate.report
        self.reloader = Reloader(
            self.manager,
            config,
            load or (lambda: config),
            self.supervisor,
            self.outbox,
            on_change=self._reloaded,
            on_done=lambda _problem: self.notifier.ready(self._summary()),
            kinds=lambda: (self.announcer and self.announcer.info()) or {},
        )
        self.control = Control(
            self.manager,
            socket_path(config.outbox.file()),
            {
                "status": lambda answer: answer(self.status.build(), None),
                "plan": self.reloader.plan,
                "running": self.reloader.running,
                "reload": self.reloader.request,
            },
        )
        self.page = make_page(self)
        self.requests = make_requests(self)
        self._clock_watch = StepWatch()
        self.fleet = make_fleet(self, self.restart)
        self.successor: Config | None = None
        """What begins anew in this process, when this agent has ended: a configuration that takes a restart."""
        self.again = False
        """Whether the program is to be executed anew instead: a request for a restart."""
        self._exit = EX_OK
        self.end = CleanEnd(
            self.manager, config, self.supervisor, self.publisher, self.outbox, on_end=self._closed, log=log
        )

    def _make_announcer(self) -> Announcer | None:
        settings = self.config.homeassistant
        if settings.discovery == "off":
            return None
        from agent.homeassistant_announcer import Announcer

        return Announcer(
            self.config.agent.id,
            self.topics,
            self.supervisor.devices,
            enabled=settings.discovery == "on",
            prefix=settings.prefix,
            bare=self.config.mqtt.format == "values",
            retain=self.publisher.retain,
            subscribe=self.link.subscribe,
            changed=lambda: self.publisher.retain(self.topics.info, self._info()),
        )

    # -- running ----------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run until a stop signal. Returns the exit status."""
        with self.manager:
            self.start()
            try:
                self.manager.loop()
            except SlowCallbackError as error:
                log.critical(line("agent.ended", reason=str(error)))
                self.supervisor.stop(lambda: None)  # lets go of the ports; the broker will publish the Will
                self.link.stop(lambda: None)  # gives up an attempt, whose end nobody would hear of
                return EX_SOFTWARE
            finally:
                if self.supervisor.parsing is not None:
                    self.supervisor.parsing.close()
        return EX_TEMPFAIL if self.outbox.busy else self._exit

    def start(self) -> None:
        """Begin: the outbox first, for it knows what the devices' readings are called."""
        config, manager = self.config, self.manager
        for stop in (signal.SIGTERM, signal.SIGINT):
            manager.create_signal_event(stop, self._stop, name=f"signal.{stop.name}")
        manager.create_signal_event(signal.SIGUSR1, self._dump, name="signal.SIGUSR1")
        manager.create_signal_event(signal.SIGHUP, self._reload, name="signal.SIGHUP")
        log.info(
            line(
                "agent.started",
                agent=config.agent.id,
                version=__version__,
                devices=len(config.devices),
                pid=os.getpid(),
            )
        )
        if self.page is not None:
            self.page.start()
        for driver, device in config.devices:
            self.supervisor.add(driver, device)
            self.publisher.retain(self.topics.device_availability(device.name), OFFLINE)
        self.publisher.retain(self.topics.availability, ONLINE)
        self.outbox.start(list(self.supervisor.devices), self._outbox_open)
        self._watch_clock()
        self.certificate.start()
        self.publisher.before_birth = self._report
        manager.create_timer_event(config.status.interval, self._report, name="status")
        if self.notifier.watchdog_s is not None:
            # Twice as often as asked, as sd_watchdog_enabled(3) advises; the loop itself feeds it, so that it starves
            # when the loop does.
            manager.create_timer_event(
                self.notifier.watchdog_s / 2, self.notifier.feed_watchdog, first_after=0.0, name="watchdog"
            )
        self.notifier.ready(self._summary())

    def _outbox_open(self) -> None:
        """Their readings have numbers from now on: the devices may begin."""
        if not self.end.begun:
            self.supervisor.start()
            self.manager.call_soon(self._devices_started)

    def _devices_started(self) -> None:
        if not self.end.begun:
            for name in self.supervisor.devices:
                self.commands.listen(name)
            if self.announcer is not None:
                self.announcer.start()
            self.publisher.retain(self.topics.info, self._info())
            if self.fleet is not None:
                self.fleet.start()
            if self.requests is not None:
                self.requests.start()
            self.link.start()
            self.reloader.ready()
            self.control.start()  # the outbox is ours now, and so is the socket beside it

    def _accept(self, readings: Sequence[Reading]) -> None:
        self.publisher.accept(readings)
        if self.announcer is not None:
            self.announcer.readings(readings)
        if self.page is not None:
            self.page.values.take(readings)

    def _message(self, message: Message) -> None:
        self.commands.message(message.topic, message.payload, message.retained)
        if self.announcer is not None:
            self.announcer.message(message.topic, message.payload, message.retained)
        if self.fleet is not None:
            self.fleet.message(message.topic, message.payload)
        if self.requests is not None:
            self.requests.message(message)

    def _watch_clock(self) -> None:
        self._clock_watch.start()
        if self._clock_watch.degraded is None:
            self.manager.create_socket_event(self._clock_watch, on_readable=self._clock_set, name="clock.set")
        else:
            log.warning(line("clock.unwatched", reason=self._clock_watch.degraded))
        if self.config.clock.trust == "kernel" and (refusal := Kernel().refusal):
            log.error(
                line("clock.unknown", reason=f'the kernel may not be asked ({refusal}); see clock.trust = "kernel"')
            )

    def _clock_set(self) -> None:
        """Readings that were held for a true clock may be free now."""
        if self._clock_watch.read():
            basis = self.clock.basis  # looks at the clocks
            log.info(line("clock.set", by_s=self.clock.last_step_ns / 1e9, basis=basis))
            self.outbox.clock_set()
            self.publisher.pump()

    def _callback_failed(self, event: Any, error: BaseException) -> None:
        """A driver's failure is its device's; any other is a defect of ours, and one line with its traceback."""
        if not self.supervisor.callback_failed(event, error):
            log.error(line("callback.failed", event=event.name, reason=repr(error)), exc_info=error)

    # -- what it says of itself ---------------------------------------------------------------------------------------

    def _device_state(self, device: str, online: bool) -> None:
        if device not in self.supervisor.devices:
            return  # it has left the configuration, and its driver was late
        if online:  # a driver that could not be made at the start has told of its outputs only now
            self.commands.listen(device)
            if self.announcer is not None:
                self.announcer.refresh(device)
        self.publisher.retain(self.topics.device_availability(device), ONLINE if online else OFFLINE)

    def _state_file(self, device: str) -> Path:
        """Where a driver's state is kept: beside the outbox, and named like it, as two agents may share a directory."""
        outbox = self.config.outbox.file()
        return outbox.with_name(f"{outbox.stem}.{device}.state")

    def _report(self) -> None:
        self.publisher.retain(self.topics.status, self.status.encode())
        self.notifier.status(self._summary())

    def _summary(self) -> str:
        """One line for ``systemctl status``."""
        devices = self.supervisor.devices.values()
        online = sum(device.state == "online" for device in devices)
        return (
            f"broker {self.link.stats().state}, {online} of {len(devices)} devices online, {self.outbox.depth} waiting"
        )

    def _channels(self, device: str) -> Sequence[Channel]:
        return self.supervisor.devices[device].channels if device in self.supervisor.devices else ()

    def _info(self) -> bytes:
        kinds = self.announcer.info() if self.announcer is not None else None
        return info(self.config.agent.id, self.status.versions, self.supervisor.devices, kinds)

    def _dump(self, _signal: int) -> None:
        log.info("agent.state\n%s", self.status.dump())

    def _reload(self, _signal: int) -> None:
        self.notifier.reloading(self.clock.mono_ns())
        self.reloader.request()

    def _reloaded(self, change: Difference) -> None:
        """Other devices than before: say so, before the new ones begin."""
        for name in change.removed:
            self.publisher.forget(self.topics.device_availability(name))
            if self.announcer is not None:
                self.announcer.remove(name)
        for name in change.added:
            self.publisher.retain(self.topics.device_availability(name), OFFLINE)
        self.publisher.retain(self.topics.info, self._info())

    # -- stopping -----------------------------------------------------------------------------------------------------

    def _stop(self, number: int) -> None:
        name = signal.Signals(number).name
        if self.successor is not None:  # on the way to a restart, which is not wanted any more
            self.successor = None
            self.notifier.stopping()
            return
        if self.end.begun:
            if not self.end.insisted:
                return
            log.warning(line("agent.forced", signal=name, unsent=self.outbox.depth))
            self._exit = 128 + number
            self.manager.terminate()
            return
        log.info(
            line("agent.stopping", signal=name, timeout_s=self.config.agent.stop_timeout, waiting=self.outbox.depth)
        )
        self.notifier.stopping()
        self.reloader.end()
        self.end.begin()

    def restart(self, config: Config) -> None:
        """End as at a stop, for ``run`` to begin anew with this configuration; systemd sees a reload."""
        if not self.end.begun:
            self.successor = config
            self.reloader.end()
            log.info(line("agent.restarting", timeout_s=self.config.agent.stop_timeout, waiting=self.outbox.depth))
            self.notifier.reloading(self.clock.mono_ns())
            self.end.begin()

    def _closed(self) -> None:
        self.control.close()
        self._clock_watch.close()
        if self.page is not None:
            self.page.close()
        self.certificate.close()
        log.info(line("agent.stopped", unsent=self.outbox.depth))
        self.manager.terminate()


def run(config: Config, load: Callable[[], Config]) -> int:
    """Run an agent in the foreground until it is told to stop. Returns the exit status for the shell.

    load: reads the configuration anew, for SIGHUP; raises ConfigError.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    bound_heap()
    agent = Agent(config, load=load)
    while not (status := agent.run()) and agent.successor is not None:
        if agent.again:
            return begin_anew()
        agent = Agent(agent.successor, load=load)
    return status
