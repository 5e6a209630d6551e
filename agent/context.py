"""What one driver may do (driver.Context), on the real event manager."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from agent.clock import Clock
from agent.codec import encode_fields
from agent.context_state import StateFile
from agent.context_stream import Stream
from agent.driver import DeviceLost, Fault, GpioPort, Parser, Port, PortT, Sample, SerialLine, WorkersBusy
from agent.events import EventManager, Missed, SocketEvent, TimerEvent, Work, WorkRejected
from agent.logline import Repeats, line
from agent.model import Reading
from agent.ports import SerialSettings, open_serial
from agent.ports_gpio import GpioLine, open_gpio

if TYPE_CHECKING:
    from agent.parsing import ParsingHost

MICROSECOND = 1000
"""In nanoseconds: the resolution of a reading's ``ts``."""
FAULT_KINDS_KEPT = 32
SAMPLE_BYTES = 64


@dataclass(slots=True)
class FaultCount:
    """How often one kind of fault was seen, and the last of it."""

    count: int = 0
    detail: str = ""
    raw: bytes = b""


@dataclass(slots=True)
class Counts:
    """What a device has given since the agent started."""

    readings: int = 0
    last_ns: int | None = None
    faults: dict[str, FaultCount] = field(default_factory=dict)


HandleT = TypeVar("HandleT", TimerEvent, SocketEvent, Work)


class Owner(Protocol):
    """Who is told of trouble: supervisor.Device."""

    def lost(self, reason: str) -> None: ...

    def failed(self, error: BaseException) -> None:
        """Something of this driver raised: DeviceLost, WorkersBusy, or else what is a defect of the driver."""


class DeviceContext:
    """One driver's context, from its start to its stop.

    Every handle that is made here is entered in ``owners``, so that an exception in its callback finds its device.
    """

    def __init__(
        self,
        device: str,
        manager: EventManager,
        clock: Clock,
        *,
        counts: Counts,
        sink: Callable[[Sequence[Reading]], object],
        next_seq: Callable[[str], int],
        owner: Owner,
        owners: dict[Any, Owner],
        blocked: bool = False,
        parsing: ParsingHost | None = None,
        state: StateFile | None = None,
    ) -> None:
        self.device = device
        self.parsing = parsing
        self._state = state or StateFile(manager, device, None, logging.getLogger(f"outstation.device.{device}"))
        self.blocked = blocked
        self.log = logging.getLogger(f"outstation.device.{device}")
        self.counts = counts
        self.clock = clock
        self.manager = manager
        self._sink = sink
        self._next_seq = next_seq
        self.owners = owners
        self.owner = owner
        self._handles: list[Any] = []
        self._streams: list[Stream] = []
        self._fault_lines = Repeats()
        self.tap: Callable[[Sequence[Sample | Fault]], object] | None = None
        """Sees what the driver emits, before rules and numbers, while somebody waits for a reading."""

    # -- driver.Context -------------------------------------------------------------------------------------------

    def now(self) -> float:
        return self.manager.now()

    def every(
        self,
        interval: float,
        fn: Callable[..., object],
        *args: Any,
        first_after: float | None = None,
        name: str | None = None,
    ) -> TimerEvent:
        label = f"{self.device}.{name or getattr(fn, '__name__', 'timer')}"
        return self._own(
            self.manager.create_timer_event(
                interval, fn, *args, first_after=first_after, missed=Missed.SKIP, name=label
            )
        )

    def after(self, delay: float, fn: Callable[..., object], *args: Any, name: str | None = None) -> TimerEvent:
        label = f"{self.device}.{name or getattr(fn, '__name__', 'timer')}"
        return self._own(self.manager.create_timer_event(delay, fn, *args, repeat=False, name=label))

    def watch(self, port: Port, on_readable: Callable[[], object]) -> SocketEvent:
        event = self.manager.create_socket_event(
            port, on_readable=on_readable, on_writable=port.flush, name=f"{self.device}.rx"
        )
        event.want_writable(False)
        port.on_blocked = event.want_writable
        return self._own(event)

    def stream(
        self,
        port: Port,
        parser: Parser,
        *,
        heavy: bool = False,
        on_end: Callable[[DeviceLost], object] | None = None,
    ) -> SocketEvent:
        stream = Stream(self, port, parser, heavy, on_end)
        self._streams.append(stream)
        stream.event = self.watch(port, stream.readable)
        if self.blocked:
            stream.block(True)
        return stream.event

    def submit(
        self,
        fn: Callable[..., Any],
        *args: Any,
        on_done: Callable[[Any], object] | None = None,
        on_error: Callable[[BaseException], object] | None = None,
        timeout: float | None = None,
        weight: float = 1.0,
        lane: str = "",
    ) -> Work | TimerEvent:
        label = f"{self.device}.{getattr(fn, '__name__', 'work')}"
        try:
            return self._own(
                self.manager.execute_work(
                    fn,
                    *args,
                    on_done=on_done,
                    on_error=on_error or self.owner.failed,
                    key=f"{self.device}.{lane}" if lane else self.device,
                    weight=weight,
                    timeout=timeout,
                    name=label,
                )
            )
        except WorkRejected as full:
            # No defect of the driver, so it does not fly through its callback. By a timer rather than call_soon: it can
            # be cancelled, ends with the driver, and what on_error raises finds its device.
            return self._own(
                self.manager.create_timer_event(
                    1.0,
                    on_error or self.owner.failed,
                    WorkersBusy(str(full)),
                    first_after=0.0,
                    repeat=False,
                    name=f"{label}.rejected",
                )
            )

    def emit(self, *items: Sample | Fault) -> None:
        self.accept(items, self.clock.mono_ns())

    def lost(self, reason: str) -> None:
        self.owner.lost(reason)

    def open_port(self, name: str, fn: Callable[..., PortT], *args: Any) -> PortT:  # noqa: ARG002  (for fakes)
        return fn(*args)

    def open_serial(self, config: SerialSettings) -> SerialLine:
        return open_serial(config)

    def open_gpio(self, chip: str, lines: Sequence[GpioLine]) -> GpioPort:
        return open_gpio(chip, lines, f"outstation {self.device}")

    def load_state(self) -> dict[str, Any]:
        return self._state.load()

    def save_state(self, state: dict[str, Any]) -> None:
        self._state.save(state)

    # -- for the supervisor ---------------------------------------------------------------------------------------

    def accept(self, items: Iterable[Sample | Fault], mono_ns: int) -> None:
        """What the driver or one of its streams gives, read at mono_ns."""
        if self.tap is not None:
            items = tuple(items)
            self.tap(items)
        self._take(items, mono_ns)

    def _take(self, items: Iterable[Sample | Fault], mono_ns: int) -> None:
        """Stamp samples and hand them on together; count faults.

        Samples that came in one read are set a microsecond apart: no two readings of a device share a ``ts``, for a
        database that is keyed by time would keep the last one only.
        """
        readings: list[Reading] = []
        if self.counts.last_ns is not None and mono_ns < self.counts.last_ns + MICROSECOND:
            mono_ns = self.counts.last_ns + MICROSECOND
        for item in items:
            if isinstance(item, Sample):
                try:
                    body = encode_fields(item.fields)
                except ValueError as error:
                    self._count(Fault("number", str(error), repr(item.fields).encode()))
                    continue
                if item.mono_ns is None:
                    stamp = mono_ns
                    mono_ns += MICROSECOND
                else:
                    stamp = item.mono_ns
                readings.append(Reading(self.device, self._next_seq(self.device), stamp, body))
            else:
                self._count(item)
        if readings:
            self.counts.readings += len(readings)
            self.counts.last_ns = readings[-1].mono_ns
            self._sink(readings)

    def stream_ended(self, stream: Stream, on_end: Callable[[DeviceLost], object], reason: DeviceLost) -> None:
        """One stream of a device that goes on: on_end is called by a timer, which ends with the driver."""
        if stream in self._streams:
            self._streams.remove(stream)
            self._own(
                self.manager.create_timer_event(
                    1.0, on_end, reason, first_after=0.0, repeat=False, name=f"{self.device}.ended"
                )
            )

    def block(self, blocked: bool) -> None:
        """The outbox is full: leave what comes in the kernel's buffers; or go on."""
        self.blocked = blocked
        for stream in self._streams:
            stream.block(blocked)

    def read_last(self) -> None:
        """At a clean stop: read once more what the kernel already holds, for it came before the stop."""
        for stream in self._streams:
            stream.readable(last=True)

    def close(self, on_closed: Callable[[], object]) -> None:
        """End timers, watches and streams; on_closed is called once the parsers have finished what was read."""
        for handle in self._handles:
            handle.cancel()
            self.owners.pop(handle, None)
        self._handles.clear()
        streams, self._streams = self._streams, []
        left = len(streams)
        if not left:
            on_closed()

        def ended() -> None:
            nonlocal left
            left -= 1
            if not left:
                on_closed()

        for stream in streams:
            stream.end(ended)

    def _own(self, handle: HandleT) -> HandleT:
        if len(self._handles) >= 64:  # the fired and the finished are let go in bulk
            gone = [h for h in self._handles if not h.active]
            self._handles = [h for h in self._handles if h.active]
            for h in gone:
                self.owners.pop(h, None)
        self._handles.append(handle)
        self.owners[handle] = self.owner
        return handle

    def _count(self, fault: Fault) -> None:
        faults = self.counts.faults
        kind = fault.kind if fault.kind in faults or len(faults) < FAULT_KINDS_KEPT else "other"
        entry = faults.get(kind)
        if entry is None:
            entry = faults[kind] = FaultCount()
        entry.count += 1
        entry.detail = fault.detail
        entry.raw = bytes(fault.raw[:SAMPLE_BYTES])
        if self._fault_lines(kind):
            self.log.info(
                line(
                    "device.fault",
                    device=self.device,
                    kind=kind,
                    count=entry.count,
                    detail=fault.detail or None,
                    raw=entry.raw or None,
                )
            )
