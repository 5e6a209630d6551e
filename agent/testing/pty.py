"""A pseudo-terminal in raw mode behind a stable link: the wire between a test and the program under test.

Facts about Linux ptys that the code below rests on (tty_ioctl(4), ioctl_tty(2), drivers/tty/{pty,n_tty}.c):

* The master of a pty whose slave nobody has open reads EIO and polls POLLHUP; a later open of the slave ends that, but
  wakes nobody. Hence edge-triggered epoll for those who wait: level-triggered, it would spin.
* In packet mode (TIOCPKT) each read of the master begins with one byte that says what happened: 0, data follow; bit 0,
  the slave's pending input was discarded. pyserial discards it as the last act of ``open()``. So the master learns when
  the program is ready, and bytes sent from then on are not lost.
* The line settings live as long as the master: raw mode set once through a slave that is closed again stays.
* The kernel holds 4095 bytes for a reader, and some more on the way; a full line takes nothing (EAGAIN), and loses
  nothing.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import tempfile
import termios
import tty
from pathlib import Path
from types import TracebackType
from typing import Self

_FLUSHED = termios.TIOCPKT_FLUSHREAD
_LINK_NAME = "tty"


class Pty:
    """One end of a serial line for a test or a simulation: non-blocking, no thread. ``PtyPort`` adds the comfort.

    ``path`` is the link that the program opens; it stays the same through ``unplug`` and ``replug``.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        """path: where the link is made; default: in a temporary directory that ``close`` removes."""
        self.ready = False
        """The program has opened the port and discarded old input; kept up to date by ``read``."""
        self._path = os.fspath(path) if path is not None else None
        self._directory: str | None = None
        self._fd = -1

    @property
    def path(self) -> str:
        """What goes into the configuration as ``port``."""
        if self._path is None:
            self._directory = tempfile.mkdtemp(prefix="outstation-pty-")
            self._path = os.path.join(self._directory, _LINK_NAME)
        return self._path

    @property
    def plugged(self) -> bool:
        return self._fd >= 0

    def fileno(self) -> int:
        """The master's descriptor, or -1 while unplugged."""
        return self._fd

    def replug(self) -> None:
        """Make a new pty behind the link, as a device that is plugged in; nothing happens if it is. Raises OSError."""
        if self._fd >= 0:
            return
        master, slave = os.openpty()
        try:
            tty.setraw(slave)  # no ECHO, ICANON, ICRNL, OPOST: every byte passes as it is, both ways
            fcntl.ioctl(master, termios.TIOCPKT, struct.pack("i", 1))
            os.set_blocking(master, False)
            # Made aside and renamed, as udev does: whoever watches the directory sees one link, complete.
            if self._directory is not None:
                os.makedirs(self._directory, mode=0o700, exist_ok=True)  # after close()
            aside = f"{self.path}.new"
            Path(aside).unlink(missing_ok=True)
            os.symlink(os.ttyname(slave), aside)
            os.replace(aside, self.path)
        except BaseException:
            os.close(master)
            raise
        finally:
            os.close(slave)
        self.ready = False
        self._fd = master

    def unplug(self) -> None:
        """Remove the link and hang up: the program reads end of file or EIO, and finds no port. Idempotent."""
        if self._fd < 0:
            return
        # The link first: the number of a closed pty goes to the next one, maybe another test's, at once.
        Path(self.path).unlink(missing_ok=True)
        fd, self._fd = self._fd, -1
        self.ready = False
        os.close(fd)

    def read(self) -> bytes:
        """What the program has written so far, without waiting; b"" if that is nothing, or nobody has the port open."""
        data = bytearray()
        while self._fd >= 0:
            try:
                packet = os.read(self._fd, 4097)
            except BlockingIOError:
                break
            except OSError:  # EIO: nobody has it open
                self.ready = False
                break
            if packet[0] == termios.TIOCPKT_DATA:
                data += packet[1:]
                self.ready = True  # whoever writes has finished opening
            elif packet[0] & _FLUSHED:
                self.ready = True
        return bytes(data)

    def write(self, data: bytes) -> int:
        """Send what the kernel takes, without waiting; the number of bytes, 0 if the line is full. Raises OSError."""
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        """Unplug, and remove what was made. Idempotent."""
        self.unplug()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        self.replug()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
