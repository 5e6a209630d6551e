"""What systemd wants to hear (sd_notify(3)) and how often its watchdog wants to be fed; nothing without systemd."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

from agent.logline import Repeats, line

log = logging.getLogger("outstation.systemd")


class Notifier:
    """Sends states to the service manager. Never blocks and never fails: a lost notification is one line in the log."""

    def __init__(self, environ: Mapping[str, str] = os.environ, pid: int | None = None) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._repeats = Repeats()
        self.watchdog_s = self._watchdog(environ, os.getpid() if pid is None else pid)

    def __bool__(self) -> bool:
        return bool(self._address)

    def ready(self, status: str) -> None:
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self, mono_ns: int) -> None:
        """``ready`` follows. mono_ns: CLOCK_MONOTONIC, which Type=notify-reload wants to know (sd_notify(3))."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={mono_ns // 1000}\nSTATUS=reading the configuration")

    def stopping(self) -> None:
        self._send("STOPPING=1\nSTATUS=stopping")

    def status(self, text: str) -> None:
        """One line that ``systemctl status`` shows."""
        self._send(f"STATUS={text}")

    def feed_watchdog(self) -> None:
        self._send("WATCHDOG=1")

    def _watchdog(self, environ: Mapping[str, str], pid: int) -> float | None:
        """Seconds within which the watchdog must be fed, or None (sd_watchdog_enabled(3))."""
        usec = environ.get("WATCHDOG_USEC")
        if usec is None or environ.get("WATCHDOG_PID", str(pid)) != str(pid) or not self._address:
            return None
        if not usec.isdecimal() or int(usec) == 0:
            log.warning(line("watchdog.ignored", WATCHDOG_USEC=usec, reason="not a number of microseconds"))
            return None
        return int(usec) / 1e6

    def _send(self, state: str) -> None:
        if not self._address:
            return
        # "@" stands for the zero byte of the abstract namespace (unix(7)).
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.sendto(state.encode("utf-8", "replace"), socket.MSG_DONTWAIT, address)
        except OSError as error:
            if count := self._repeats("send"):
                log.warning(
                    line("systemd.not_notified", socket=self._address, reason=error.strerror or error, count=count)
                )
        else:
            self._repeats.over("send")
