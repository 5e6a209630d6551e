"""A growing file as a port: what is written to it, over its rotation, told by inotify.

Of a rotation by renaming the old file is read to its end, and the new one begun when something stands in it: whoever
writes has left the old one by then, however long after the renaming (logrotate's ``create`` and a late SIGHUP). A file
that got shorter is read from its beginning (``copytruncate``); one that was cut and has outgrown the old place before
anybody looked cannot be told from one that grew.

The file is read on the loop's thread, 64 KiB a turn: 10 µs from the page cache, where what was just written is; 3 ms
at an SD card's 20 MB/s, for the beginning of an old file, and read-ahead is asked for. Not for network file systems:
inotify hears nothing of what others write to them.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from agent.errors import DeviceLost, PortError
from agent.hotplug import Inotify, PathWatch
from agent.ports import READ_SIZE

_MODIFY: Final = 0x2  # linux/inotify.h: written to, or truncated
_AHEAD: Final = 1 << 20  # bytes of an old file that the kernel is asked to fetch before they are read


class Rotated(DeviceLost):
    """The file has ended: another stands in its place, or it was truncated. The port goes on there with its next read.

    Caught by the driver, which begins a new parser: what is left of a line does not go on in the new file.
    """


def open_tail(path: str, at_end: bool) -> TailPort:
    """Open a file that grows. at_end: what stands in it is passed over. Raises PortError."""
    watched = PathWatch()  # before the file is looked at: no change comes in between
    try:
        watched.add(path, "")
        file = _open(path)
        try:
            return TailPort(path, file, watched, at_end)
        except OSError:
            os.close(file)
            raise
    except OSError as error:
        watched.close()
        if isinstance(error, PortError):
            raise
        raise PortError("failed", f"{path} cannot be watched: {error.strerror}") from error


def _open(path: str) -> int:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise PortError("missing", f"{path} does not exist", "it is read as soon as it does") from error
        if error.errno in (errno.EACCES, errno.EPERM):
            remedy = "let the agent's user read it, and search its directories (as by the group adm)"
            raise PortError("permission", f"{path} may not be read", remedy) from error
        raise PortError("failed", f"{path} cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise PortError("unsupported", f"{path} is no regular file", "of a FIFO or device: cat it by the driver exec")
    return file


class TailPort:
    """An open file, and what tells of its growing. Used on the loop's thread alone, once it is open."""

    def __init__(self, path: str, file: int, watched: PathWatch, at_end: bool) -> None:
        """file: a descriptor; the port owns it and ``watched`` from now on, unless this raises OSError."""
        self.name = path
        self.on_blocked: Callable[[bool], object] | None = None
        self._file = file
        self._watched = watched
        self._inotify = Inotify()
        self._more = os.eventfd(1, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  # something may be there already
        self._epoll: select.epoll | None = select.epoll()
        for source in (watched.fileno(), self._inotify.fd, self._more):
            self._epoll.register(source, select.EPOLLIN)
        self._next: tuple[int, int] | None = None  # the file that stands in the place of ours
        with suppress(FileNotFoundError):  # gone again: PathWatch tells when there is another
            self._inotify.add(path, _MODIFY)
        self._at = os.fstat(file).st_size if at_end else 0
        os.posix_fadvise(file, self._at, _AHEAD, os.POSIX_FADV_WILLNEED)

    def fileno(self) -> int:
        """Readable when ``read`` may have something to give or to raise; -1 once closed."""
        return -1 if self._epoll is None else self._epoll.fileno()

    def read(self) -> bytes:
        """What was written, at most 64 KiB; b"" if nothing. Raises Rotated where a file ends, DeviceLost."""
        if self._epoll is None:
            raise DeviceLost(f"{self.name} is closed")
        self._heard()
        try:
            data = os.pread(self._file, READ_SIZE, self._at)
            if not data:
                return self._at_end()
        except DeviceLost:
            raise
        except OSError as error:
            raise DeviceLost(f"{self.name}: {error.strerror}") from error
        return self._took(data)

    def write(self, data: bytes) -> None:  # noqa: ARG002
        """It is read only."""
        raise DeviceLost(f"{self.name} is only read")

    def flush(self) -> None:
        """Nothing is ever left over."""

    def close(self) -> None:
        """Idempotent."""
        if self._epoll is None:
            return
        self._epoll.close()
        self._epoll = None
        self._inotify.close()
        self._watched.close()
        os.close(self._more)
        os.close(self._file)

    def _heard(self) -> None:
        """Take what the sources tell. Which of them it was does not matter: the file itself is asked."""
        self._watched.read()
        for _ in self._inotify.read():
            pass
        with suppress(BlockingIOError):
            os.eventfd_read(self._more)

    def _took(self, data: bytes) -> bytes:
        self._at += len(data)
        os.eventfd_write(self._more, 1)  # there may be more, and inotify has told of it already
        return data

    def _at_end(self) -> bytes:
        if os.fstat(self._file).st_size < self._at:
            self._at = 0
            os.eventfd_write(self._more, 1)
            raise Rotated(f"{self.name} was truncated")
        try:
            there = os.stat(self.name)
            ours = os.fstat(self._file)
            if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino) or not stat.S_ISREG(there.st_mode):
                return b""
            if self._next != (there.st_dev, there.st_ino):
                self._next = there.st_dev, there.st_ino
                self._inotify.add(self.name, _MODIFY)  # then look again, for it may have been written to before
                there = os.stat(self.name)
            if not there.st_size:
                return b""
            if data := os.pread(self._file, READ_SIZE, self._at):  # written before the new one was begun
                return self._took(data)
            file = _open(self.name)
        except (FileNotFoundError, PortError):  # renamed or removed, and no other there yet
            return b""
        os.close(self._file)
        self._file, self._at, self._next = file, 0, None
        os.eventfd_write(self._more, 1)
        raise Rotated(f"{self.name} was replaced")
