"""The kernel's messages about devices (NETLINK_KOBJECT_UEVENT), by which udev itself learns that one was plugged in.

They come when the node in /dev is made, before udev has given it links and a group, which inotify then tells of.
"""

from __future__ import annotations

import socket
from typing import Final

_PROTOCOL: Final = 15  # NETLINK_KOBJECT_UEVENT (linux/netlink.h)
_KERNEL_GROUP: Final = 1
_BUFFER: Final = 8192  # of one message: UEVENT_BUFFER_SIZE is 2048 (linux/kobject.h)
_MOST: Final = 64  # messages a turn; epoll comes back for the rest


class Uevents:
    """An open netlink socket, non-blocking. For the loop's thread alone."""

    def __init__(self) -> None:
        """Raises OSError where this process may not hear it. Needs no privilege, but AF_NETLINK of its service."""
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, _PROTOCOL)
        try:
            self._socket.bind((0, _KERNEL_GROUP))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> set[str] | None:
        """Nodes (``/dev/ttyUSB0``) of devices that were added or changed; None if messages were lost (ENOBUFS)."""
        nodes: set[str] = set()
        for _ in range(_MOST):
            try:
                data, sender = self._socket.recvfrom(_BUFFER)
            except BlockingIOError:
                break
            except OSError:
                return None
            # Only the kernel has port id 0: a message of another process is none (CVE-2009-1185 was believing it).
            if sender[0] == 0 and (node := added(data)):
                nodes.add(node)
        return nodes

    def close(self) -> None:
        self._socket.close()


def added(message: bytes) -> str | None:
    """The node that a message says is here now, or None. ``add@/devices/...\\0ACTION=add\\0DEVNAME=ttyUSB0\\0...``"""
    words = dict(part.split(b"=", 1) for part in message.split(b"\0")[1:] if b"=" in part)
    name = words.get(b"DEVNAME")
    if not name or words.get(b"ACTION") not in (b"add", b"change", b"move", b"bind"):
        return None
    return "/dev/" + name.decode(errors="surrogateescape").removeprefix("/dev/")
