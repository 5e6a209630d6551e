"""A step of the wall clock as an event: a descriptor that becomes readable when somebody has set it.

timerfd_create(2): a timer of CLOCK_REALTIME with TFD_TIMER_CANCEL_ON_SET ends with ECANCELED when that clock is set, by
whomever, and after a suspend. Slewing is no step and makes no event, nor does the kernel's becoming synchronised: who
waits for that asks ``Clock.release_before`` again after a while.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Any, Final, Protocol

_CLOCK_REALTIME: Final = 0  # linux/time.h
_ABSTIME, _CANCEL_ON_SET = 0x1, 0x2  # linux/timerfd.h
_NEVER: Final = (1 << (8 * ctypes.sizeof(ctypes.c_long) - 1)) - 1  # seconds: the kernel's last; with 32 bits in 2038

_REASONS: Final = {
    errno.EPERM: "the sandbox refuses timerfd (SystemCallFilter= of the service?)",
    errno.ENOSYS: "this kernel has no timerfd",
    errno.EINVAL: "this kernel cannot tell of a step of its clock",
    errno.EMFILE: "too many open files (LimitNOFILE=)",
    errno.ENFILE: "too many open files in the system",
}


class _ItimerSpec(ctypes.Structure):
    """struct itimerspec: ``time_t`` is a long where libc offers these names (for 64 bits on 32 it has others)."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class Libc(Protocol):
    """Two calls of libc, as ctypes offers them: -1 and errno on failure."""

    def timerfd_create(self, clock: int, flags: int, /) -> int: ...

    def timerfd_settime(self, fd: int, flags: int, new: Any, old: Any, /) -> int: ...


class StepWatch:
    """Tells that the wall clock was set. One descriptor, no thread; for the loop's thread alone.

    It is a help, not a promise: where the timer is refused (``degraded``) a step is noticed at the next reading,
    message or status report, for each of them looks at the clocks.
    """

    def __init__(self, libc: Libc | None = None) -> None:
        self._libc = libc
        self._fd = -1
        self._degraded: str | None = None

    def start(self) -> None:
        """Begin to watch. Never raises OSError: where there is nothing to watch, ``degraded`` says why."""
        if self._libc is None:
            # Python has os.timerfd_create from 3.13 on; this does for all, and ctypes is loaded for adjtimex already.
            self._libc = ctypes.CDLL(None, use_errno=True)
        self.close()
        self._degraded = None
        # TFD_NONBLOCK and TFD_CLOEXEC are defined as O_NONBLOCK and O_CLOEXEC.
        self._fd = self._libc.timerfd_create(_CLOCK_REALTIME, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            self._degraded = _reason(ctypes.get_errno())
        elif not self._arm(self._libc):
            self.close()

    def fileno(self) -> int:
        """Readable when the clock was set since the last ``read``. -1: not started, closed, or ``degraded``."""
        return self._fd

    @property
    def degraded(self) -> str | None:
        """Why a step makes no event, for the log and the status; None if it does."""
        return self._degraded

    def read(self) -> bool:
        """Whether the clock was set since the last call. Takes the event away and waits for the next one."""
        if self._fd < 0 or self._libc is None:
            return False
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.ECANCELED:
                raise
            # Linux goes on watching as it is, but the manual page calls such a timer cancelled.
            self._arm(self._libc)
            return True
        # It is _NEVER: 2038 by a kernel's interface of 32 bits. What is in the past cannot be waited for.
        self._degraded = "the time is past what a timer of 32 bits can hold"
        return False

    def close(self) -> None:
        """Idempotent. Unwatch it first."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _arm(self, libc: Libc) -> bool:
        spec = ctypes.byref(_ItimerSpec(value_s=_NEVER))
        if libc.timerfd_settime(self._fd, _ABSTIME | _CANCEL_ON_SET, spec, None) == 0:
            return True
        code = ctypes.get_errno()
        if code == errno.ECANCELED:
            # Set again just now. The timer is armed all the same (fs/timerfd.c), and who looks at the clocks after this
            # call sees that step too.
            return True
        self._degraded = _reason(code)
        return False


def _reason(code: int) -> str:
    return _REASONS.get(code, f"timerfd: {os.strerror(code)}")
