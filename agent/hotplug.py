"""Devices that come and go: which of the watched paths has appeared, or may be opened now.

The kernel's inotify (inotify(7)) tells of changes in directories, so a path is watched by the directories that decide
about it: of each symbolic link on the way the one that holds the link, and the last that exists. Those of
``/dev/serial/by-id/usb-x -> ../../ttyUSB0`` are ``/dev/serial/by-id`` (or, until udev makes it, ``/dev``) and ``/dev``.

Where the path is below /dev the kernel's own messages about devices are heard too (hotplug_uevent), if they may be.

It is a help, not a promise: a directory above the watched one that is renamed, a mount put over it, a network file
system and the limits of inotify go unseen. Whoever waits for a path keeps a timer of his own.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import struct
from collections.abc import Iterator
from typing import Any, Final

from agent.hotplug_uevent import Uevents

_ATTRIB, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x4, 0x40, 0x80, 0x100, 0x200  # linux/inotify.h
_MOVE_SELF, _OVERFLOW, _IGNORED, _ONLYDIR = 0x800, 0x4000, 0x8000, 0x0100_0000
_MASK: Final = _ATTRIB | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _MOVE_SELF | _ONLYDIR
# Not IN_CLOSE: our own attempt at a busy port closes it too, and would call for the next attempt, without end.

_HEAD: Final = struct.Struct("iIII")
_READ_SIZE: Final = 65536  # 4,000 events with short names; the kernel queues 16,384 (max_queued_events)
_MAX_LINKS: Final = 40  # as path_resolution(7)
_MAX_ARMINGS: Final = 8  # a path that changes faster than this is left to the caller's timer

_LIMITS: Final = {
    errno.EMFILE: "too many inotify instances of this user (fs.inotify.max_user_instances) or open files",
    errno.ENFILE: "too many open files in the system",
    errno.ENOSPC: "too many inotify watches of this user (fs.inotify.max_user_watches)",
    errno.ENOMEM: "no memory for inotify",
    errno.ENOSYS: "this kernel has no inotify",
}


class PathWatch:
    """Tells which paths have appeared or changed permission. One descriptor, no thread; for the loop's thread alone.

    The descriptor is an epoll of its own, for both sources: it exists, silent, before the first ``add`` and where
    inotify is refused.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._inotify: Inotify | None = None
        self._uevents: Uevents | None = None
        self._deaf = False  # AF_NETLINK was refused: not asked for again
        self._paths: dict[str, str] = {}  # token -> path
        # What decides about a token's path, as (watched directory, name in it); and the same the other way round.
        self._keys: dict[str, set[tuple[int, str]]] = {}
        self._tokens: dict[int, dict[str, set[str]]] = {}
        self._blind: dict[str, str] = {}  # token -> why its path cannot be watched

    def fileno(self) -> int:
        """Readable when ``read`` has something to say."""
        return self._epoll.fileno()

    @property
    def degraded(self) -> str | None:
        """Why some path cannot be watched, for the status; None if all are. Such a path may never be reported."""
        return next(iter(self._blind.values()), None)

    def add(self, path: str, token: str) -> None:
        """Watch an absolute path from now on, there or not. What appears between this call and an opening is reported.

        A path that ends in "*" stands for all names in its directory that begin so; any of them that appears counts.
        Costs one inotify watch a directory, shared by all paths in it. Never raises OSError: see ``degraded``.
        """
        if not path.startswith("/"):
            raise ValueError(f"only an absolute path can be watched, not {path!r}")
        self.remove(token)
        self._paths[token] = path
        self._arm(token)
        if path.startswith("/dev/") and self._uevents is None and not self._deaf:
            self._listen()

    def remove(self, token: str) -> None:
        """Forget a token; nothing happens if it is unknown."""
        if self._paths.pop(token, None) is not None:
            self._unkey(token, set())
            self._blind.pop(token, None)

    def read(self) -> set[str]:
        """Tokens whose path is there and was made, moved in or given other permissions since the last call."""
        touched = self._told() if self._uevents is not None else set()
        inotify = self._inotify
        for watch, mask, name in inotify.read() if inotify is not None else ():
            if mask & _OVERFLOW:  # events were lost: any path may have changed
                touched.update(self._paths)
                continue
            names = self._tokens.get(watch, {})
            if mask & (_MOVE_SELF | _IGNORED):  # the directory is not where it was, or gone
                touched.update(token for tokens in names.values() for token in tokens)
                if mask & _IGNORED:
                    self._tokens.pop(watch, None)
                elif inotify is not None:
                    inotify.remove(watch)  # its IN_IGNORED follows
            else:
                touched.update(names.get(name, ()))
                if mask & (_CREATE | _MOVED_TO | _ATTRIB):
                    begun = [tokens for key, tokens in names.items() if key[-1:] == "*" and name.startswith(key[:-1])]
                    touched.update(*begun)
        for token in touched:
            self._arm(token)
        return {token for token in touched if os.path.exists(path := self._paths[token]) or path.endswith("*")}

    def close(self) -> None:
        """Idempotent."""
        self._paths.clear()
        self._keys.clear()
        self._tokens.clear()
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
        if self._uevents is not None:
            self._uevents.close()
            self._uevents = None
        self._epoll.close()

    def _listen(self) -> None:
        try:
            self._uevents = Uevents()
        except OSError:  # another network namespace, or no AF_NETLINK for this service: inotify tells nearly all of it
            self._deaf = True
        else:
            self._epoll.register(self._uevents, select.EPOLLIN)

    def _told(self) -> set[str]:
        """Tokens of the devices that the kernel says are here now."""
        assert self._uevents is not None
        nodes = self._uevents.read()
        if nodes is None:  # messages were lost
            return set(self._paths)
        return {token for token, path in self._paths.items() if nodes and _is_among(path, nodes)}

    def _arm(self, token: str) -> None:
        """Watch what decides about the path now; again until nothing has changed meanwhile."""
        before: list[tuple[str, str]] | None = None
        for _ in range(_MAX_ARMINGS):
            steps = list(_deciding(self._paths[token]))
            if steps == before:
                return
            self._blind.pop(token, None)
            keys = set()
            for directory, name in steps:
                try:
                    keys.add((self._watch(directory), name))
                except OSError as error:  # ENOENT, ENOTDIR: gone again, the next round sees it
                    if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                        self._blind[token] = _LIMITS.get(error.errno or 0, f"{directory}: {error.strerror}")
            for watch, name in keys:
                self._tokens.setdefault(watch, {}).setdefault(name, set()).add(token)
            self._unkey(token, keys)  # after the new ones are in: a directory that stays keeps its watch
            self._keys[token] = keys
            before = steps if len(keys) == len(steps) else None

    def _unkey(self, token: str, keep: set[tuple[int, str]]) -> None:
        for watch, name in self._keys.pop(token, set()) - keep:
            names = self._tokens.get(watch)
            if names is None or name not in names:
                continue
            names[name].discard(token)
            if not names[name]:
                del names[name]
            if not names:
                del self._tokens[watch]
                if self._inotify is not None:
                    self._inotify.remove(watch)

    def _watch(self, directory: str) -> int:
        if self._inotify is None:
            self._inotify = Inotify()
            self._epoll.register(self._inotify.fd, select.EPOLLIN)
        return self._inotify.add(directory)


def _is_among(path: str, nodes: set[str]) -> bool:
    if path.endswith("*"):
        return any(node.startswith(path[:-1]) for node in nodes)
    return os.path.realpath(path) in nodes


def _deciding(path: str) -> Iterator[tuple[str, str]]:
    """(directory, name in it) of every link on the way and of the last part that is there, or the first that is not.

    An unreadable directory cannot be watched: then the name that would have to change is the directory's own.
    """
    directory, parts, links = "/", path.split("/")[::-1], 0
    while parts:
        name = parts.pop()
        if name in ("", "."):
            continue
        if name == "..":
            directory = os.path.dirname(directory)
            continue
        here = os.path.join(directory, name)
        try:
            mode = os.lstat(here).st_mode
        except OSError as error:
            yield directory, name
            if error.errno == errno.EACCES:
                yield os.path.dirname(directory), os.path.basename(directory)
            return
        if stat.S_ISLNK(mode):
            yield directory, name
            links += 1
            try:
                target = os.readlink(here)
            except OSError:
                return
            if links > _MAX_LINKS:
                return
            if target.startswith("/"):
                directory = "/"
            parts += target.split("/")[::-1]
        elif not parts or not stat.S_ISDIR(mode):
            yield directory, name
            return
        else:
            directory = here


class Inotify:
    """Four calls of libc. (inotify_simple runs ldconfig to find libc: a fork, from the event loop.)"""

    def __init__(self) -> None:
        import ctypes  # 2 ms and 0.3 MiB, which an agent without such a device need not pay

        self._errno = ctypes.get_errno
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)

    def add(self, path: str, mask: int = _MASK) -> int:
        """The watch of a directory (or, with another mask, a file), the same if it has one. Raises OSError."""
        return self._call("inotify_add_watch", self.fd, os.fsencode(path), mask)

    def remove(self, watch: int) -> None:
        try:
            self._call("inotify_rm_watch", self.fd, watch)
        except OSError as error:
            if error.errno != errno.EINVAL:  # the kernel took it away with its directory
                raise

    def read(self) -> Iterator[tuple[int, int, str]]:
        """(watch, mask, name) of what is queued, at most 64 KiB of it, without waiting."""
        try:
            data = os.read(self.fd, _READ_SIZE)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            watch, mask, _, length = _HEAD.unpack_from(data, at)
            at += _HEAD.size
            yield watch, mask, os.fsdecode(data[at : at + length].rstrip(b"\0"))
            at += length

    def close(self) -> None:
        os.close(self.fd)

    def _call(self, function: str, *args: Any) -> int:
        result: int = getattr(self._libc, function)(*args)
        if result < 0:
            code = self._errno()
            raise OSError(code, os.strerror(code), function)
        return result
