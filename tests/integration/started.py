"""A command as people start it: output seen as it comes, on a terminal or in a pipe, and its end."""

from __future__ import annotations

import codecs
import fcntl
import os
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

ROOT = Path(__file__).resolve().parents[2]


class Started:
    """A command under way, in a pipe or on a terminal of 24 lines and 80 columns; its output is read as it comes.

    Whatever a test comes to, its command ends with it: conftest.py calls ``end_all``.
    """

    under_way: ClassVar[list[Started]] = []

    def __init__(self, command: list[str], env: dict[str, str], *, terminal: bool = False) -> None:
        if terminal:
            self.fd, out = os.openpty()
            fcntl.ioctl(out, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
            self.settings = termios.tcgetattr(out)
        else:
            self.fd, out = os.pipe()
        self.process = subprocess.Popen(
            command,
            env=env,
            stdin=out if terminal else subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=ROOT,
            # A session of its own, whose terminal this is: Ctrl-C then is what it is to a person.
            preexec_fn=(lambda: (os.setsid(), fcntl.ioctl(0, termios.TIOCSCTTY, 0))) if terminal else None,
        )
        self.under_way.append(self)
        self.slave = out if terminal else -1
        if not terminal:
            os.close(out)
        self.output = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()  # a read may end within a character

    def wait_for(self, condition: Callable[[str], object], timeout: float = 30.0) -> None:
        deadline = time.monotonic() + timeout
        while not condition(self.output):
            left = deadline - time.monotonic()
            assert left > 0, f"not shown in time; it showed at last:\n{self.output[-3000:]}"
            if select.select([self.fd], [], [], left)[0]:
                data = os.read(self.fd, 65536)
                assert data, f"it ended; it showed at last:\n{self.output[-3000:]}"
                self.output += self._decoder.decode(data)

    def end(self, timeout: float = 20.0) -> int:
        """Read to the end: its exit status."""
        if self.slave >= 0:
            os.close(self.slave)
        deadline = time.monotonic() + timeout
        while True:
            assert select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))[0], self.output
            try:
                data = os.read(self.fd, 65536)
            except OSError:  # EIO: the terminal's last user has gone
                break
            if not data:
                break
            self.output += self._decoder.decode(data)
        os.close(self.fd)
        return self.process.wait(timeout)

    @classmethod
    def end_all(cls) -> None:
        """Kill those that have not ended: the test that started them has failed before."""
        while cls.under_way:
            process = cls.under_way.pop().process
            if process.poll() is None:
                process.kill()
                process.wait()
