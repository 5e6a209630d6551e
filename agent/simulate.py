"""``outstation simulate``: many agents in one process, to find out what a broker carries.

They share the event manager and its pool of workers, on which alone connections are opened; a connected agent costs one
descriptor, a few timers and its state, and no thread (docs/decisions/064-simulated-agents.md).
"""

from __future__ import annotations

import errno
import gc
import logging
import os
import resource
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.clock import Clock
from agent.errors import LinkError
from agent.events import EventManager, TimerEvent
from agent.hotplug import PathWatch
from agent.mqtt_connect import Attempt
from agent.mqtt_probe import probe
from agent.mqtt_settings import MqttSettings
from agent.outbox_settings import OutboxSettings
from agent.simulate_agent import Board, Shared
from agent.simulate_count import Sums, Tally
from agent.simulate_sweep import Sweep
from agent.simulate_view import Facts, Outcome, View, end, progress
from agent.status import process

EX_LOST = 1
EX_UNAVAILABLE = 69
WORKERS = 16
"""Connections opened at a time: TCP and TLS are waited for on workers."""
STOP_TIMEOUT = 10.0
"""Seconds for all agents to send what they have and to leave."""
SWEEP_TIMEOUT = 10.0
"""Seconds for what is retained to be removed."""
MEMORY = 256_000_000
"""Bytes in which readings may wait, of all agents together: each has its share, and drops its oldest beyond that."""
LEAST_SHARE = 65_536
"""Bytes, the least that an outbox takes: some 170 readings."""
FREEZE_EVERY = 100
"""Agents after which the collector of garbage is told that what is here stays: looking at two thousand of them holds
the loop for a quarter of a second (measured), again and again."""
SPARE_FILES = 64
"""Descriptors beside those of the agents: workers, the loop's own, what Python has open."""


class SimulateError(RuntimeError):
    """This machine does not allow what was asked for; says what to do. Caught by the command."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to simulate. settings: one for each URL, the URLs in another order in each, so that agents spread over them.

    rate: readings a second of each device; duration: seconds after the ramp, None until a signal; every: seconds
    between two lines in a pipe.
    """

    settings: tuple[MqttSettings, ...]
    name: str
    agents: int
    devices: int
    rate: float
    ramp: float
    duration: float | None
    every: float
    as_json: bool
    moving: bool


class Simulation:
    """One run, from the first connection to the table."""

    def __init__(self, options: Options, clock: Clock) -> None:
        self._options = options
        manager = self._manager = EventManager(
            workers=(1, WORKERS),
            # Each agent has at most one attempt waiting.
            work_queue=options.agents + WORKERS,
            slow_after=1.0,
            on_callback_error=self._callback_failed,
        )
        log = logging.getLogger("outstation.simulate")
        log.propagate = False  # thousands of agents would say the same: it is counted, and shown as a sum
        log.addHandler(logging.NullHandler())
        self._shared = Shared(manager, clock, PathWatch(), log, Tally())
        first = options.settings[0]
        brokers = tuple(str(url) for url in first.brokers())
        self._facts = Facts(brokers, options.agents, options.devices, options.rate, options.ramp, first.qos)
        share = max(LEAST_SHARE, MEMORY // options.agents)
        self._outbox = OutboxSettings(durability="memory", max_bytes=share, path=Path(os.devnull))
        self._view = View(sys.stderr if options.as_json else sys.stdout, moving=options.moving)
        self._boards: list[Board] = []
        self._timers: list[TimerEvent] = []
        self._base = self._sums()
        self._begin: Sums | None = None
        self._end: Sums | None = None
        self._before = self._base
        self._stopping = False
        self._stopped = 0
        self._unswept = 0
        self._lag = 0.0
        self._failure: BaseException | None = None

    def run(self) -> int:
        """The exit status. Raises LinkError if no broker takes us."""
        manager = self._manager
        devices = logging.getLogger("outstation.device")
        level = devices.level
        devices.setLevel(logging.CRITICAL)  # theirs as well
        try:
            with manager:
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    manager.create_signal_event(number, self._signal, name=f"signal.{number.name}")
                manager.execute_work(
                    self._probe, on_done=lambda _none: self._start(), on_error=self._fail, name="simulate.probe"
                )
                manager.loop()
        finally:
            devices.setLevel(level)
            self._shared.paths.close()
        if self._failure is not None:
            raise self._failure
        return self._finish()

    def _finish(self) -> int:
        last = self._sums()
        begin, stop = self._begin or self._base, self._end or last
        outcome = Outcome(self._facts, self._shared.tally, self._base, begin, stop, last, self._lag, self._unswept)
        if not self._options.as_json:
            self._view.say("")
        try:
            end(outcome, as_json=self._options.as_json)
        except OSError as error:
            self._gone(error)
        if not self._shared.tally.connecting.count:
            return EX_UNAVAILABLE
        return EX_LOST if outcome.lost or stop.connected < self._options.agents else 0

    # -- beginning --------------------------------------------------------------------------------------------------

    def _probe(self) -> None:
        """On a worker: whether any broker takes us. Better said at once than by two thousand agents."""
        settings = self._options.settings[0]
        failure: LinkError | None = None
        for url in settings.brokers():
            try:
                probe(Attempt(url, settings), f"{self._options.name}-probe")
            except LinkError as error:
                failure = failure or error
            else:
                return
        assert failure is not None, "settings name at least one broker"
        raise failure

    def _start(self) -> None:
        """Start agents one by one over the ramp: a storm of CONNECTs is a choice (--ramp 0s)."""
        options, manager = self._options, self._manager
        if self._stopping:
            return
        self._base = self._before = self._sums()
        for number in range(options.agents):
            after = max(1e-6, options.ramp * number / options.agents)
            self._timers.append(
                manager.create_timer_event(after, self._start_one, number, repeat=False, name="simulate.start")
            )
        self._timers.append(
            manager.create_timer_event(max(1e-6, options.ramp), self._all_started, repeat=False, name="simulate.ramp")
        )
        every = 1.0 if options.moving else options.every
        self._timers.append(manager.create_timer_event(every, self._tick, name="simulate.tick"))

    def _start_one(self, number: int) -> None:
        options = self._options
        interval = 1.0 / options.rate
        board = Board(
            self._shared,
            f"{options.name}-{number + 1}",
            options.settings[number % len(options.settings)],
            self._outbox,
            devices=options.devices,
            interval=interval,
            phase=interval * number / options.agents,
        )
        self._boards.append(board)
        board.start()
        if not number % FREEZE_EVERY:
            gc.freeze()

    def _all_started(self) -> None:
        gc.freeze()
        self._begin = self._sums()
        if self._options.duration is not None:
            self._timers.append(
                self._manager.create_timer_event(self._options.duration, self._stop, repeat=False, name="simulate.over")
            )

    # -- at work ----------------------------------------------------------------------------------------------------

    def _sums(self) -> Sums:
        used = process()
        sums = Sums(self._manager.now(), float(used["cpu_s"]), int(used["rss_bytes"]))
        for board in self._boards:
            board.add_to(sums)
        return sums

    def _tick(self) -> None:
        now = self._sums()
        self._view.show(progress(self._facts, self._before, now, self._base.at))
        self._before = now

    # -- ending -----------------------------------------------------------------------------------------------------

    def _signal(self, _number: int) -> None:
        if self._stopping:  # the second one: at once
            self._manager.terminate()
        self._stop()

    def _stop(self) -> None:
        """Stop the devices and drain every agent; then remove what is retained."""
        if self._stopping:
            return
        self._stopping = True
        self._end, self._lag = self._sums(), self._manager.stats().worst_lag
        for timer in self._timers:
            timer.cancel()
        if not self._boards:
            self._manager.terminate()
            return
        # Their own limits end them before this one does, unless the loop is that late.
        late = STOP_TIMEOUT + 2.0
        self._timers = [self._manager.create_timer_event(late, self._sweep, repeat=False, name="simulate.late")]
        for board in self._boards:  # a callback each: one for all of them would count as slow
            self._manager.call_soon(board.stop, STOP_TIMEOUT, self._board_stopped)

    def _board_stopped(self) -> None:
        self._stopped += 1
        if self._stopped == len(self._boards):
            self._sweep()

    def _sweep(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        topics = [topic for board in self._boards for topic in board.retained()]
        settings = self._options.settings[0]
        sweep = Sweep(self._manager, settings, f"{self._options.name}-sweep", topics, self._shared.log, self._swept)
        sweep.start(SWEEP_TIMEOUT)

    def _swept(self, left: int) -> None:
        self._unswept = left
        self._manager.terminate()

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        self._manager.terminate()

    def _callback_failed(self, event: Any, error: BaseException) -> None:
        """Whoever watched has gone (``| head``, a lost terminal): a clean end. All else is a defect; main shows it."""
        if isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.EIO):
            self._gone(error)
            self._stop()
        else:
            error.add_note(f"in {event.name}")
            self._fail(error)

    def _gone(self, error: OSError) -> None:
        """Nobody reads us any more; what is still buffered would fail once more when the interpreter flushes it."""
        if error.errno not in (errno.EPIPE, errno.EIO):
            raise error
        null = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(null, stream.fileno())
        os.close(null)


def allow(agents: int, brokers: int) -> None:
    """Raise this process's limit of open files as far as needed. Raises SimulateError with the remedy where it cannot.

    brokers: how many addresses there are to connect to.
    """
    needed = agents + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard not in (resource.RLIM_INFINITY,) and needed > hard:
        raise SimulateError(
            f"{agents} agents need {needed} open files, and this process may have {hard}: raise the limit as root "
            f"(ulimit -Hn {needed}), by LimitNOFILE= under systemd, or by --ulimit nofile={needed} for a container"
        )
    if soft not in (resource.RLIM_INFINITY,) and needed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    # ip_local_port_range (ip(7)): one local port for each connection to the same address.
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("ascii").split())
    if agents > (high - low + 1) * brokers:
        raise SimulateError(
            f"{agents} agents need as many local ports, and there are {high - low + 1}: widen them "
            '(sysctl net.ipv4.ip_local_port_range="1024 65535"), or give --url several times'
        )


def main(options: Options) -> int:
    """Simulate, and show what came of it; the exit status. Raises LinkError and SimulateError."""
    allow(options.agents, len(options.settings))
    return Simulation(options, Clock()).run()
