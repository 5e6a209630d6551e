"""A child process as a port: what it prints, and how it ended.

One descriptor (an epoll of its own) tells of its output, of its complaints and of its end, the last by a pidfd
(pidfd_open(2), Linux 5.3): no SIGCHLD, no polling, and no wrong process, as a pid that is not reaped is not given
again. The child leads a session and process group of its own, and the group ends with it: at the latest when the port
is closed.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from agent.errors import ChildEnded, DeviceLost, PortError
from agent.ports import READ_SIZE

LAST_WORDS: Final = 512
"""Bytes of the standard error that are kept: a line for a person."""

LEFT_OVER: Final = 1 << 20
"""Bytes that are still read when the child has ended: as much as a pipe can hold (pipe-max-size). More comes from a
process that has left the group and has the pipe still open; it is nobody's child, and would go on for ever."""

INHERITED: Final = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR")
"""What a child gets of our environment. Not all of it: the broker's password may stand there."""


def open_child(
    command: Sequence[str], *, directory: str = "", environment: Mapping[str, str] | None = None, ending: bytes = b""
) -> ChildPort:
    """Start a command; no shell reads it. Blocks until it runs (0.2 ms, or a slow disk's time). Raises PortError.

    directory: where it runs, default: where we do; environment: what is set for it beside INHERITED;
    ending: bytes that are read after the last of its output when it ends with status 0: the end of its last line.
    """
    env = {name: os.environ[name] for name in INHERITED if name in os.environ} | dict(environment or {})
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd=directory or None,
            env=env,
            start_new_session=True,
        )
    except OSError as error:
        raise _refused(command[0], directory, error) from error
    except ValueError as error:  # a NUL byte in it
        raise PortError("failed", f"{command[0]} cannot be started: {error}") from error
    try:
        return ChildPort(process, os.path.basename(command[0]), ending)
    except OSError as error:  # pidfd_open, epoll_create: no descriptor left, or a kernel before 5.3
        _kill(process, signal.SIGKILL)
        process.communicate()
        raise PortError("unsupported", f"{command[0]} cannot be watched: {error.strerror}") from error


def _refused(program: str, directory: str, error: OSError) -> PortError:
    if directory and error.filename == directory:
        return PortError("missing", f"directory {directory}: {error.strerror}", "make it, or name another")
    if error.errno == errno.ENOENT:
        remedy = "install it, or give its whole path; what a shell knows (pipes, ~, $NAME) needs `shell` for `command`"
        return PortError("missing", f"{program}: no such program", remedy)
    if error.errno in (errno.EACCES, errno.EPERM):
        return PortError("permission", f"{program} may not be executed", "chmod +x, or give its whole path")
    if error.errno == errno.ENOEXEC:
        return PortError("unsupported", f"{program} is no program", "a script begins with #! and its interpreter")
    return PortError("failed", f"{program} cannot be started: {error.strerror}")


class ChildPort:
    """A running child. Used on the loop's thread alone, once it is open."""

    def __init__(self, process: subprocess.Popen[bytes], name: str, ending: bytes) -> None:
        """process: with pipes for its output, at the head of a group of its own; the port owns it from now on."""
        assert process.stdout is not None
        assert process.stderr is not None
        self.name = name
        self.on_blocked: Callable[[bool], object] | None = None
        self._process = process
        self._out, self._err = process.stdout.fileno(), process.stderr.fileno()
        self._ending = ending
        self._words = b""
        self._left = LEFT_OVER
        self._ended: ChildEnded | None = None
        self._pidfd = os.pidfd_open(process.pid)
        try:
            self._epoll: select.epoll | None = select.epoll()
        except OSError:
            os.close(self._pidfd)
            raise
        for fd in (self._out, self._err, self._pidfd):
            self._epoll.register(fd, select.EPOLLIN)
        os.set_blocking(self._out, False)
        os.set_blocking(self._err, False)

    def fileno(self) -> int:
        """Readable when ``read`` has something to give or to raise; -1 once closed."""
        return -1 if self._epoll is None else self._epoll.fileno()

    def read(self) -> bytes:
        """What it has printed, at most 64 KiB, without waiting; b"" if nothing. Raises ChildEnded behind the last."""
        if self._epoll is None:
            raise DeviceLost(f"{self.name} is closed")
        ready = {fd for fd, _ in self._epoll.poll(0)}
        if self._err in ready:
            self._words = (self._words + self._take(self._err))[-LAST_WORDS:]
        data = self._take(self._out) if self._out in ready else b""
        if self._pidfd not in ready:
            return data
        self._reap()  # from here on the pipe holds what it holds
        self._left -= len(data)
        if data and self._left > 0:
            return data
        assert self._ended is not None
        if self._ended.status == 0 and self._ending:
            data, self._ending = self._ending, b""
            return data
        raise self._ended

    def write(self, data: bytes) -> None:  # noqa: ARG002
        """Its standard input is /dev/null."""
        raise DeviceLost(f"{self.name} takes no input")

    def flush(self) -> None:
        """Nothing is ever left over."""

    def terminate(self) -> None:
        """Ask it, and its group, to end: SIGTERM. Nothing happens if it has ended."""
        _kill(self._process, signal.SIGTERM)

    def kill(self) -> None:
        """End it, and its group: SIGKILL. ``read`` tells when it is gone."""
        _kill(self._process, signal.SIGKILL)

    def close(self) -> None:
        """Idempotent. Kills the group if the child still runs.

        It dies within a millisecond and stays a zombie until the next child is started: subprocess then reaps those of
        whom nobody has asked. To wait for it here would hold the loop up for as long as its disk does.
        """
        if self._epoll is None:
            return
        if self._process.poll() is None:
            self.kill()
            self._process.poll()
        self._epoll.close()
        self._epoll = None
        os.close(self._pidfd)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _take(self, fd: int) -> bytes:
        """What a pipe holds; one that has ended is watched no more, as it would be reported for ever."""
        try:
            data = os.read(fd, READ_SIZE)
        except BlockingIOError:
            return b""
        if not data and self._epoll is not None:
            self._epoll.unregister(fd)
        return data

    def _reap(self) -> None:
        """The child is a zombie: end what is left of its group while the number is still its own, then let it go."""
        if self._ended is None:
            _kill(self._process, signal.SIGKILL)
            status = self._process.poll()
            self._words = (self._words + self._last_words())[-LAST_WORDS:]
            self._ended = ChildEnded(self.name, -signal.SIGKILL if status is None else status, _line(self._words))

    def _last_words(self) -> bytes:
        with suppress(OSError):
            return os.read(self._err, READ_SIZE)
        return b""


def _kill(process: subprocess.Popen[bytes], signum: signal.Signals) -> None:
    """Send a signal to the child's group, unless the child was reaped: the number may be another's then."""
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):  # gone; or it runs as another user, as by sudo
            os.killpg(process.pid, signum)


def _line(words: bytes) -> str:
    """The last line that is not blank, as a person may read it on a terminal."""
    lines = [line for line in words.decode(errors="replace").splitlines() if line.strip()]
    return "".join(c if c.isprintable() else "?" for c in lines[-1].strip()) if lines else ""
