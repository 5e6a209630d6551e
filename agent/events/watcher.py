"""The watcher: a thread that names a callback while it is still running, with the line on which it stands.

It has to be there when the loop is held, and to cost nothing when it is not:

* The loop arms it with plain stores (Meter.run). It makes a system call only when the watcher sleeps without a
  time-out, which is after a quiet period; a loop that has something to do every now and then never pays it twice
  within a period.
* Lightly loaded, the watcher looks once a period, slow_after + 0.15 s, which is as long as it may be: a callback that
  hangs just after a look is named by the next one. Busy, with a callback running whenever it looks, it looks every
  slow_after. A hang is so named within slow_after + 0.2 s, whenever it begins.
* One period without a turn, and it sleeps for good, until the loop wakes it.

Code that never lets go of the interpreter's lock stops this thread too; systemd's watchdog is there for that.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from contextlib import suppress
from time import monotonic
from types import FrameType

from .event import log, worth_a_line
from .meter import Meter
from .names import place_of
from .threads import start_thread
from .types import SlowCallback

GRACE = 0.15  # seconds after slow_after within which a hang is to be named; 0.05 of the 0.2 are left for a busy machine
EX_SOFTWARE = 70  # sysexits.h: an internal software error
_OWN = os.path.dirname(__file__) + os.sep  # frames of the manager itself, which tell the reader nothing


def _stack(frame: FrameType | None) -> tuple[str, ...]:
    """The callback's part of a stack, outermost first: what lies below the manager's own frames."""
    lines: list[str] = []
    while frame is not None and not frame.f_code.co_filename.startswith(_OWN):
        lines.append(f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_qualname}")
        frame = frame.f_back
    return tuple(reversed(lines))


class Watcher:
    """Looks at a Meter from a thread of its own. ``wake()`` and ``stop()`` are the loop's side."""

    def __init__(self, meter: Meter, slow_after: float, hang_after: float, fatal: bool) -> None:
        self._meter = meter
        self._slow_after = slow_after
        self._hang_after = hang_after
        self._fatal = fatal
        self._period = slow_after + GRACE
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._bell = threading.Lock()  # held while nobody rings; a lock is the cheapest wait that Python has
        self._bell.acquire()
        self.owner = 0  # ident of the loop's thread
        self.asleep = True

    def wake(self) -> None:
        """Called by the loop at the start of a turn's callbacks if ``asleep``. One futex call, once a quiet period."""
        self.asleep = False
        if self._thread is None:
            self._thread = start_thread("events-watcher", self._run)
        else:
            with suppress(RuntimeError):  # rung already: it is awake and about to look
                self._bell.release()

    def stop(self) -> None:
        """End the thread; at once if it sleeps, and in any case before it looks again."""
        self._stopping = True
        with suppress(RuntimeError):
            self._bell.release()

    def _run(self) -> None:
        meter = self._meter
        reported = hung = -1.0  # `since` of the call that was last reported, and as hung
        while not self._stopping:
            since, running = meter.since, meter.event is not None
            elapsed = monotonic() - since
            if not running:
                self._bell.acquire(timeout=self._period)
                if meter.since == since and meter.event is None and not self._stopping:
                    self._sleep(since)
            elif elapsed < self._slow_after:
                # Look again when this call, should it still run then, is slow for certain; a whole slow_after from now,
                # unless it has been running for so long that it would be named too late.
                self._bell.acquire(timeout=self._slow_after - (elapsed if elapsed > GRACE else 0.0))
            elif reported != since:
                reported = since
                self._report(since)
            elif elapsed < self._hang_after:
                self._bell.acquire(timeout=min(self._hang_after - elapsed, self._period))
            elif hung != since:
                hung = since
                self._hung(since)
            else:
                self._bell.acquire(timeout=self._period)

    def _sleep(self, since: float) -> None:
        """Wait without a time-out. The flag first, then a last look: a call that began between is not overlooked."""
        self.asleep = True
        if self._meter.since != since or self._meter.event is not None:
            self.asleep = False
            return
        self._bell.acquire()

    def _look(self, since: float) -> SlowCallback | None:
        """The running call with its stack, or None if it is no longer the one that began at ``since``."""
        meter = self._meter
        event = meter.event
        stack = _stack(sys._current_frames().get(self.owner))
        if event is None or meter.since != since:
            return None
        meter.seen = (since, stack)
        return SlowCallback(event.name, *place_of(event._fn), monotonic() - since, running=True, stack=stack)

    def _report(self, since: float) -> None:
        slow = self._look(since)
        event = self._meter.event
        if slow is None or event is None or not worth_a_line(event._tally.slow + 1):
            return
        if any(f"{os.sep}logging{os.sep}" in line for line in slow.stack):
            return  # it hangs inside a log handler, whose lock we would wait for
        log.warning(
            "callback.running name=%s duration=%.3fs function=%s at=%s:%s stack=%s",
            slow.name,
            slow.duration,
            slow.function,
            slow.file or "built-in",
            slow.line or "-",
            " > ".join(slow.stack) or "-",
        )

    def _hung(self, since: float) -> None:
        slow = self._look(since)
        if slow is None:
            return
        if self._fatal:
            self._end(slow)
        if not any(f"{os.sep}logging{os.sep}" in line for line in slow.stack):
            log.error("callback.hung name=%s duration=%.1fs stack=%s", slow.name, slow.duration, " > ".join(slow.stack))

    def _end(self, slow: SlowCallback) -> None:
        """End the process. Nothing here may wait: not for logging's locks, nor for a stderr that nobody reads."""
        frame = sys._current_frames().get(self.owner)
        text = f"callback hung: {slow}; ending the process (on_slow='stop')\n" + "".join(traceback.format_stack(frame))
        writer = start_thread("events-last-words", os.write, 2, text.encode(errors="replace"))
        writer.join(1.0)
        os._exit(EX_SOFTWARE)
