"""One device at work: opened on a worker, reopened when it is lost, put in quarantine when its driver is at fault."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from agent.context import Counts, DeviceContext
from agent.context_rules import RuledContext, rule_gate
from agent.context_state import StateFile
from agent.device_outputs import Pending
from agent.device_reads import Reads, Told
from agent.device_surroundings import Surroundings
from agent.driver import DeviceConfig, DeviceLost, Done, Driver, Output, Port, Value, WorkersBusy
from agent.events import TimerEvent, WorkRejected, WorkTimeout
from agent.logline import Repeats, line
from agent.model import Channel
from agent.ports import watched_path
from agent.ports_opening import Opening
from agent.rules_settings import published

OPEN_TIMEOUT = 10.0
"""Seconds for one opening: a TCP port behind a dead router, a USB adapter that hangs in its ioctl."""
BACKOFF_FIRST = 0.25
BACKOFF_MOST = 30.0
"""Seconds between two openings, doubled each time and jittered by a quarter: forty boards must not move in step."""
SETTLED = 10.0
"""Seconds after which an open device counts as well: a loose plug neither resets the back-off nor fills the log."""
APPEARED_PAUSE = 0.1
"""Least seconds between two openings that a change of the path asks for: udev makes a node, then gives it its group."""
CRASHES = 5
CRASH_WINDOW = 600.0
QUARANTINE = 900.0
"""A driver that fails by its own fault five times in ten minutes rests for fifteen."""

State = Literal["stopped", "opening", "online", "waiting", "quarantined"]


class Device:
    """One device of the configuration: its driver and the state of its port."""

    def __init__(self, surroundings: Surroundings, driver: type[Driver], config: DeviceConfig) -> None:
        self.name = config.name
        self.driver = driver
        self.config = config
        self.counts = Counts()
        self.state: State = "stopped"
        self.reason: str | None = None
        self.since = 0.0
        self.openings = 0
        self.crashes: deque[float] = deque(maxlen=CRASHES)
        self.log = logging.getLogger(f"outstation.device.{config.name}")
        self._env = surroundings
        self._gate = rule_gate(config, surroundings.manager, surroundings.clock)
        self._driver: Driver | None = None
        self._ctx: DeviceContext | None = None
        self._port: Port | None = None
        self._attempt: Opening[Port] | None = None
        self._retry: TimerEvent | None = None
        self._failures = 0
        self._appeared = False
        self._announced = False
        self._closing = False
        self._last_opening = float("-inf")
        self._lines = Repeats()
        self._state = StateFile(surroundings.manager, config.name, surroundings.state_file(config.name), self.log)
        self._pending = Pending(surroundings.manager, config.name)
        self._reads = Reads(surroundings.manager, config.name)
        self._on_stopped: Callable[[], object] | None = None

    # -- what the supervisor asks ---------------------------------------------------------------------------------

    def start(self) -> None:
        self._watch_path(True)
        self._open()

    def stop(self, on_stopped: Callable[[], object]) -> None:
        """Stop reading; on_stopped is called when all that was read is parsed and the port is closed."""
        was = self.state
        self._on_stopped = partial(self._state.settle, on_stopped)
        self._watch_path(False)
        if self._retry is not None:
            self._retry.cancel()
        if self._attempt is not None:
            self._attempt.abandon()
            self._attempt = None
        if was == "online":
            self._enter("stopped", None)
            self._close(clean=True)
        elif not self._closing:
            self._stopped()

    def appeared(self) -> None:
        """Its path was made, or its permissions changed."""
        if self.state == "opening":
            self._appeared = True
        elif self.state == "waiting":
            due = self._last_opening + APPEARED_PAUSE - self._env.manager.now()
            self._schedule(max(0.0, due))

    def block(self, blocked: bool) -> None:
        """Take no readings, or take them again."""
        if self._ctx is not None:
            self._ctx.block(blocked)

    @property
    def channels(self) -> Sequence[Channel]:
        """What it publishes, as far as its driver has told."""
        read = self._driver.channels if self._driver is not None else self.driver.channels
        return published(self.config.rules, read)

    @property
    def outputs(self) -> Sequence[Output]:
        """What may be set."""
        return self._driver.outputs if self._driver is not None else self.driver.outputs

    def set(self, output: str, value: Value, done: Done) -> None:
        """Have the driver set an output; done is called once, with None, or with why it is not set."""
        if self.state != "online" or self._driver is None:
            done(self._not_online)
        elif (answered := self._pending.begin(done)) is None:
            done(f"{self.name} has too many commands to answer; send the next when one is answered")
        else:
            self._call(self._driver.set, output, value, answered)

    def read(self, within: float, told: Told) -> None:
        """Have the driver ask now; told is called once: with what came, or with why nothing did in so many seconds."""
        if self.state != "online" or self._driver is None or self._ctx is None:
            told(None, self._not_online)
        elif self._ctx.blocked:
            told(None, f"the outbox is full, and {self.name} is not asked until it takes readings again")
        elif (over := self._reads.begin(self._ctx, within, told)) is not None:
            self._call(self._driver.read_now, over)

    @property
    def _not_online(self) -> str:
        """Why it answers nothing, for a person."""
        return f"{self.name} is {self.state}" + (f": {self.reason}" if self.reason else "")

    def link_changed(self, up: bool) -> None:
        """The broker is there, or gone."""
        if self.state == "online" and self._driver is not None:
            self._call(self._driver.link_changed, up)

    def lost(self, reason: str) -> None:
        """The device is gone. Closes it, and tries again."""
        if self.state != "online":
            return
        manager = self._env.manager
        if manager.now() - self.since > SETTLED:
            self._failures = 0
            self._lines = Repeats()
        self._enter("waiting", reason)
        self._close(then=lambda: self._back_off("device.lost", reason))

    def failed(self, error: BaseException) -> None:
        """Something of its driver raised: the device is gone, the workers are at their limit, or it has a defect."""
        if isinstance(error, DeviceLost | WorkersBusy):
            self.lost(str(error))
        else:
            self._crash(error)

    def _crash(self, error: BaseException) -> None:
        manager = self._env.manager
        reason = f"defect in driver {self.config.driver}: {type(error).__name__}: {error}"
        if self._lines(reason):
            self.log.error(line("driver.crashed", device=self.name, reason=reason), exc_info=error)
        if self.state not in ("online", "opening") or self._on_stopped is not None:
            return
        self.crashes.append(manager.now())
        if len(self.crashes) == CRASHES and manager.now() - self.crashes[0] < CRASH_WINDOW:
            self.crashes.clear()
            self._enter("quarantined", reason)
            self.log.error(
                line("device.quarantined", device=self.name, reason=reason, crashes=CRASHES, retry_in_s=QUARANTINE)
            )
            self._close(then=lambda: self._schedule(QUARANTINE))
        else:
            self._enter("waiting", reason)
            self._close(then=lambda: self._back_off("device.lost", reason))
        self._driver = None  # The next opening makes a new one: nobody knows in what state this one is.

    @property
    def place(self) -> dict[str, str]:
        """Its port for a report, ``{"port": path}``; nothing of a device without one: its settings say it."""
        return {"port": self.config.port} if hasattr(self.config, "port") else {}

    def report(self, now_ns: int) -> dict[str, Any]:
        """Its part of the status report."""
        last = self.counts.last_ns
        return {
            "state": self.state,
            "reason": self.reason,
            "for_s": round(self._env.manager.now() - self.since, 3),
            "driver": self.config.driver,
            **self.place,
            "openings": self.openings,
            "readings": self.counts.readings,
            "last_reading_s": None if last is None else round((now_ns - last) / 1e9, 3),
            "faults": {
                kind: {"count": f.count, "last": f.detail, "bytes": repr(f.raw)[2:-1]}
                for kind, f in self.counts.faults.items()
            },
            **({} if self._gate is None else {"rules": self._gate.rules.report()}),
        }

    # -- opening ----------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        env = self._env
        self._appeared = False
        self._last_opening = env.manager.now()
        self._enter("opening", self.reason)
        # Without rules there is nothing of them on the way of a reading.
        make = DeviceContext if self._gate is None else partial(RuledContext, gate=self._gate)
        self._ctx = make(
            self.name,
            env.manager,
            env.clock,
            counts=self.counts,
            sink=env.sink,
            next_seq=env.next_seq,
            owner=self,
            owners=env.owners,
            blocked=env.blocked,
            state=self._state,
            parsing=env.parsing,
        )
        if not self._call(self._make_driver, self._ctx):
            return
        assert self._driver is not None
        if type(self._driver).open is Driver.open:
            self._opened(None)
            return
        self._attempt = attempt = Opening[Port](self._driver.open)
        try:
            env.manager.execute_work(
                attempt.run,
                on_done=lambda port: self._attempt_done(attempt, port),
                on_error=lambda error: self._attempt_failed(attempt, error),
                key=self.name,
                timeout=OPEN_TIMEOUT,
                name=f"{self.name}.open",
            )
        except WorkRejected as full:
            self._attempt_failed(attempt, full)

    def _attempt_done(self, attempt: Opening[Port], port: Port | None) -> None:
        if attempt is self._attempt:
            self._attempt = None
            self._opened(port)
        elif port is not None:
            port.close()

    def _attempt_failed(self, attempt: Opening[Port], error: BaseException) -> None:
        if attempt is not self._attempt:
            return
        self._attempt = None
        if isinstance(error, WorkTimeout):
            attempt.abandon()
            self._not_opened(f"opening took longer than {OPEN_TIMEOUT:g} s")
        elif isinstance(error, DeviceLost | WorkRejected):
            self._not_opened(str(error))
        else:
            self._crash(error)

    def _opened(self, port: Port | None) -> None:
        assert self._driver is not None
        self._port = port
        self.openings += 1
        self._enter("online", None)
        if self._gate is not None and not self._call(self._gate.declare, self._driver):
            return
        self._call(self._driver.start, port)
        self.link_changed(self._env.link_up)
        if self.state != "online":  # lost while starting
            return
        if self._lines("online"):
            name, opening = port.name if port else None, self.openings if self.openings > 1 else None
            self.log.info(line("device.online", device=self.name, port=name, opening=opening))
        self._announced = True
        self._env.on_state(self.name, True)

    def _not_opened(self, reason: str) -> None:
        self._enter("waiting", reason)
        # Where the path changed while we were failing, the reason may be gone already.
        self._back_off("device.unavailable", reason, APPEARED_PAUSE if self._appeared else None)

    def _make_driver(self, ctx: DeviceContext) -> None:
        if self._driver is None:
            self._driver = self.driver(self.config, ctx)
        self._driver.ctx = ctx

    def _call(self, fn: Callable[..., object], *args: object) -> bool:
        """Run the driver's own code: whatever it raises concerns this device alone."""
        try:
            fn(*args)
        except Exception as error:  # noqa: BLE001  (a callback: the driver's own code)
            self.failed(error)
            return False
        return True

    # -- closing ----------------------------------------------------------------------------------------------------

    def _close(self, *, clean: bool = False, then: Callable[[], object] | None = None) -> None:
        """Close driver and port; ``then`` is called when what was read is parsed, unless we stop meanwhile."""
        ctx, self._ctx = self._ctx, None
        port, self._port = self._port, None
        self._pending.end(self._not_online)
        self._reads.end(self._not_online)
        if not clean:
            self._announce_offline()
        if self._driver is not None and ctx is not None:
            if clean:
                self._call(ctx.read_last)
            self._call(self._driver.stop)

        def closed() -> None:
            self._closing = False
            if self._on_stopped is not None and self._gate is not None:
                self._gate.flush()
            self._announce_offline()  # at a clean stop behind its last readings
            if self._on_stopped is not None:
                self._stopped()
            elif then is not None:
                then()

        self._closing = True
        if ctx is None:
            closed()
        else:
            ctx.close(closed)
        if port is not None:
            port.close()

    def _announce_offline(self) -> None:
        if self._announced:
            self._announced = False
            self._env.on_state(self.name, False)

    def _stopped(self) -> None:
        if self._gate is not None:  # lost before, with a window open
            self._gate.flush()
        self._enter("stopped", None)
        then, self._on_stopped = self._on_stopped, None
        if then is not None:
            then()

    # -- waiting ----------------------------------------------------------------------------------------------------

    def _back_off(self, event: str, reason: str, delay: float | None = None) -> None:
        if delay is None:
            delay = min(BACKOFF_MOST, BACKOFF_FIRST * 2 ** min(self._failures, 16))
            delay *= 1 - self._env.rng.random() / 4
        self._failures += 1
        if count := self._lines(reason):
            shown = {"retry_in_s": round(delay, 1), "failures": count if count > 1 else None}
            self.log.warning(line(event, device=self.name, reason=reason, **shown))
        self._schedule(delay)

    def _schedule(self, delay: float) -> None:
        if self._retry is not None:
            self._retry.cancel()
        self._retry = self._env.manager.create_timer_event(
            max(delay, 1e-6), self._open, repeat=False, name=f"{self.name}.reopen"
        )

    def _enter(self, state: State, reason: str | None) -> None:
        self.state = state
        self.reason = reason
        self.since = self._env.manager.now()

    def _watch_path(self, on: bool) -> None:
        path = watched_path(self.driver.appears(self.config))
        if path is not None:
            if on:
                self._env.paths.add(path, self.name)
            else:
                self._env.paths.remove(self.name)
