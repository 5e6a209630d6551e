"""A step of the clock as a descriptor. The clock of the machine that runs the tests is left alone.

What the kernel does when its clock is really set is therefore played (``SetClock``), after timerfd_create(2). The rest
is the kernel's own: that it takes the timer and its flags, what it says of an expired one, what a filter refuses.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.clock_watch import StepWatch
from agent.events import EventManager

ROOT = Path(__file__).resolve().parents[2]
REAL = ctypes.CDLL(None, use_errno=True)


def readable(fd: int, seconds: float = 0.0) -> bool:
    return bool(select.select([fd], [], [], seconds)[0])


# ---- against the kernel


@pytest.fixture
def watch() -> Iterator[StepWatch]:
    watch = StepWatch()
    watch.start()
    yield watch
    watch.close()


def test_the_kernel_takes_it_as_a_timer_of_the_wall_clock_that_a_step_ends(watch: StepWatch) -> None:
    assert watch.degraded is None
    told = dict(
        line.split(":", 1)
        for line in Path(f"/proc/self/fdinfo/{watch.fileno()}").read_text().splitlines()
        if ":" in line
    )  # proc(5)
    assert told["clockid"].strip() == "0"  # CLOCK_REALTIME
    assert told["settime flags"].strip() == "03"  # TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET


def test_it_is_silent_while_nobody_sets_the_clock(watch: StepWatch) -> None:
    assert not readable(watch.fileno())
    assert watch.read() is False
    assert not os.get_blocking(watch.fileno())
    assert not os.get_inheritable(watch.fileno())


def test_the_event_manager_takes_it(watch: StepWatch) -> None:
    with EventManager() as manager:
        event = manager.create_socket_event(watch, on_readable=watch.read, name="clock.set")
        assert manager.run_once(timeout=0) == 0
        event.cancel()


def test_starting_again_and_closing_twice_leave_no_descriptor_behind(watch: StepWatch) -> None:
    before = len(os.listdir("/proc/self/fd"))
    watch.start()
    assert len(os.listdir("/proc/self/fd")) == before
    watch.close()
    watch.close()
    assert len(os.listdir("/proc/self/fd")) == before - 1
    assert watch.fileno() == -1
    assert watch.read() is False


def test_it_can_be_closed_before_it_is_started() -> None:
    watch = StepWatch()
    watch.close()
    assert (watch.fileno(), watch.degraded, watch.read()) == (-1, None, False)


class Expired:
    """The kernel's timers, set to 1970: what a timer of 32 bits comes to in 2038."""

    timerfd_create = staticmethod(REAL.timerfd_create)

    def timerfd_settime(self, fd: int, flags: int, new: Any, old: Any) -> int:
        spec = new._obj
        if spec.value_s:
            spec.value_s = 1
        return int(REAL.timerfd_settime(fd, flags, new, old))


def test_a_timer_that_has_run_out_is_no_step_and_falls_silent() -> None:
    watch = StepWatch(Expired())
    watch.start()
    assert readable(watch.fileno(), 10.0)
    assert watch.read() is False
    assert "32 bits" in str(watch.degraded)
    assert not readable(watch.fileno())
    watch.close()


SECCOMP = """
import ctypes, errno, struct, sys
# linux/filter.h: load the system call's number; each that is refused: RET_ERRNO | EPERM; else RET_ALLOW.
refused = [int(word) for word in sys.argv[1:]]
code = [(0x20, 0, 0, 0)]
code += [(0x15, len(refused) - index, 0, number) for index, number in enumerate(refused)]
code += [(0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x00050000 | errno.EPERM)]
program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
fprog = ctypes.create_string_buffer(struct.pack("HP", len(code), ctypes.addressof(program)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, fprog) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER

from agent.clock import Clock, Kernel
from agent.clock_watch import StepWatch
print(Kernel().refusal, Kernel().synchronised())
watch = StepWatch()
watch.start()
print(watch.fileno(), watch.degraded, watch.read())
watch.close()
print(Clock().trusted())
"""

NUMBERS = {  # asm/unistd.h: timerfd_create, timerfd_settime; adjtimex, clock_adjtime
    "x86_64": ((283, 286), (159, 305)),
    "aarch64": ((85, 86), (171, 266)),
}


@pytest.mark.skipif(platform.machine() not in NUMBERS, reason="needs the numbers of this machine's system calls")
@pytest.mark.parametrize("which", [0, 1], ids=["timerfd_create", "timerfd_settime"])
def test_a_sandbox_that_refuses_is_a_reason_and_no_exception(which: int) -> None:
    timerfd, adjtimex = NUMBERS[platform.machine()]
    command = [sys.executable, "-c", SECCOMP, str(timerfd[which]), *map(str, adjtimex)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "adjtimex: Operation not permitted False",
        "-1 the sandbox refuses timerfd (SystemCallFilter= of the service?) False",
        "True",  # trust = "auto": by this machine's plausible time
    ]


# ---- a clock that is set, and a kernel that refuses, played


class SetClock:
    """Timers whose clock can be set: the next read then ends in ECANCELED, as does arming one just then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ours, self.kernels = socket.socketpair()
        self.ours.setblocking(False)
        self.timers: list[int] = []
        self.armed: list[tuple[int, int]] = []
        self.fail = {"timerfd_create": 0, "timerfd_settime": 0, "read": errno.ECANCELED}
        os_read = os.read

        def read(fd: int, length: int) -> bytes:
            if fd not in self.timers:
                return os_read(fd, length)
            os_read(fd, 4096)
            raise OSError(self.fail["read"], os.strerror(self.fail["read"]))

        monkeypatch.setattr(os, "read", read)

    def timerfd_create(self, clock: int, flags: int) -> int:
        assert (clock, flags) == (0, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._result("timerfd_create"):
            return -1
        self.timers.append(os.dup(self.ours.fileno()))
        return self.timers[-1]

    def timerfd_settime(self, fd: int, flags: int, new: Any, old: Any) -> int:
        assert (fd, old) == (self.timers[-1], None)
        self.armed.append((flags, new._obj.value_s))
        return self._result("timerfd_settime")

    def _result(self, call: str) -> int:
        ctypes.set_errno(self.fail[call])
        return -1 if self.fail[call] else 0

    def step(self) -> None:
        self.kernels.send(b"!")

    def close(self) -> None:
        self.kernels.close()
        self.ours.close()


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Iterator[SetClock]:
    played = SetClock(monkeypatch)
    yield played
    played.close()


ARMED = (3, 2 ** (8 * ctypes.sizeof(ctypes.c_long) - 1) - 1)


def test_each_step_is_one_event(played: SetClock) -> None:
    watch = StepWatch(played)
    watch.start()
    with EventManager() as manager:
        seen: list[bool] = []
        event = manager.create_socket_event(watch, on_readable=lambda: seen.append(watch.read()), name="clock.set")
        assert manager.run_once(timeout=0) == 0
        for count in (1, 2):
            played.step()
            assert manager.run_once(timeout=10) == 1
            assert manager.run_once(timeout=0) == 0, "it was taken away"
            assert seen == [True] * count
        event.cancel()
    assert watch.degraded is None
    assert played.armed == [ARMED] * 3, "set again after each, as the manual page asks"
    watch.close()


def test_steps_in_quick_succession_are_one(played: SetClock) -> None:
    watch = StepWatch(played)
    watch.start()
    played.step()
    played.step()
    assert watch.read() is True
    assert watch.read() is False
    watch.close()


@pytest.mark.parametrize("when", ["start", "read"])
def test_a_step_while_the_timer_is_armed_leaves_it_armed(played: SetClock, when: str) -> None:
    watch = StepWatch(played)
    if when == "start":
        played.fail["timerfd_settime"] = errno.ECANCELED
    watch.start()
    played.fail["timerfd_settime"] = errno.ECANCELED
    played.step()
    assert watch.read() is True
    assert watch.degraded is None
    assert watch.fileno() == played.timers[0]
    watch.close()


@pytest.mark.parametrize(
    ("call", "code", "reason"),
    [
        ("timerfd_create", errno.EPERM, "the sandbox refuses timerfd (SystemCallFilter= of the service?)"),
        ("timerfd_create", errno.ENOSYS, "this kernel has no timerfd"),
        ("timerfd_create", errno.EMFILE, "too many open files (LimitNOFILE=)"),
        ("timerfd_create", errno.ENOMEM, "timerfd: Cannot allocate memory"),
        ("timerfd_settime", errno.EINVAL, "this kernel cannot tell of a step of its clock"),
    ],
)
def test_what_is_refused_is_a_reason_and_no_exception(played: SetClock, call: str, code: int, reason: str) -> None:
    watch = StepWatch(played)
    played.fail[call] = code
    watch.start()
    assert watch.degraded == reason
    assert watch.fileno() == -1
    assert watch.read() is False
    if call == "timerfd_settime":  # it was closed by its number
        watch.close()


def test_it_may_be_started_again_when_the_reason_is_gone(played: SetClock) -> None:
    watch = StepWatch(played)
    played.fail["timerfd_create"] = errno.EMFILE
    watch.start()
    played.fail["timerfd_create"] = 0
    watch.start()
    assert (watch.degraded, watch.fileno()) == (None, played.timers[0])
    watch.close()


def test_a_failure_of_another_kind_is_not_swallowed(played: SetClock) -> None:
    watch = StepWatch(played)
    watch.start()
    played.fail["read"] = errno.EIO
    played.step()
    with pytest.raises(OSError, match="Input/output"):
        watch.read()
    watch.close()
