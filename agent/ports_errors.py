"""Why a port does not open, and what a person can do about it."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from glob import glob
from pathlib import Path
from typing import Final

from agent.errors import PortError

_MISSING: Final = {errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.ENOTDIR, errno.ELOOP}
_BUSY: Final = {errno.EBUSY, errno.EAGAIN}  # TIOCEXCL of another program; flock
_NO_PERMISSION: Final = {errno.EACCES, errno.EPERM}

_USUAL: Final = ("/dev/serial/by-id/*", "/dev/ttyUSB*", "/dev/ttyACM*", "/dev/ttyAMA*", "/dev/serial[0-9]*")
_SHOWN: Final = 8  # ports that a remedy lists

_GUESTS: Final = {
    "ModemManager": "it probes new ports: sudo systemctl mask --now ModemManager",
    "brltty": "it takes USB adapters for braille displays: sudo apt-get remove brltty",
    "agetty": "a login console runs on it: sudo systemctl disable --now 'serial-getty@{tty}'",
}
"""Programs known to sit on serial ports without having been asked to."""


def port_error(path: str, code: int | None, message: str, *, proc: Path = Path("/proc")) -> PortError:
    """What opening ``path`` failed with, as errno and text, made into a PortError that names the remedy.

    Looks at the device node and, if the port is busy, through /proc: it may take some milliseconds.
    """
    if code in _MISSING:
        return _missing(path)
    if code in _BUSY:
        return _busy(path, proc)
    if code in _NO_PERMISSION:
        return _permission(path, code)
    if code in (errno.ENOTTY, errno.EINVAL):
        return PortError("failed", f"{path} is not a serial port, or refuses these settings: {message}")
    if code == errno.EIO:
        return PortError(
            "failed",
            f"{path} does not answer: {message}",
            "no UART is behind it, or its adapter hangs: plug it in anew",
        )
    return PortError("failed", f"{path} cannot be opened: {message}")


def _missing(path: str) -> PortError:
    message = f"{path} does not exist"
    if os.path.islink(path):
        message = f"{path} points to {os.readlink(path)}, which does not exist"
    elif os.path.exists(path):
        message = f"{path} exists, but no device is behind it"
    elif not path.startswith("/"):
        return PortError("missing", message, f"give the whole path, as /dev/{os.path.basename(path)}")
    present = sorted({found for pattern in _USUAL for found in glob(pattern)})
    if not present:
        return PortError("missing", message, "plug the device in; no serial adapter is here now")
    more = f" and {len(present) - _SHOWN} more" if len(present) > _SHOWN else ""
    return PortError("missing", message, f"plug the device in; now here: {', '.join(present[:_SHOWN])}{more}")


def _busy(path: str, proc: Path) -> PortError:
    found = holders(path, proc)
    if not found:
        return PortError("busy", f"{path} is in use by another program", f"find it by: sudo fuser -v {path}")
    others = [(pid, command) for pid, command in found if pid != os.getpid()]
    if not others:
        return PortError("busy", f"{path} is in use by this agent itself", "do two devices name this port? Remove one")
    message = f"{path} is in use by " + ", ".join(f"{command} (pid {pid})" for pid, command in others)
    for guest, remedy in _GUESTS.items():
        if any(guest in command for _, command in others):
            return PortError("busy", message, remedy.format(tty=os.path.basename(os.path.realpath(path))))
    return PortError("busy", message, "stop it, or let it read another port")


def holders(path: str, proc: Path = Path("/proc")) -> list[tuple[int, str]]:
    """(pid, command) of the processes that have the device open, as far as this user may see; else those that lock it.

    Only root sees the descriptors of others (proc(5)); /proc/locks is open to all and names who holds the flock.
    """
    real = os.path.realpath(path)
    found = []
    for entry in proc.glob("[0-9]*"):
        try:
            if any(os.readlink(fd.path) == real for fd in os.scandir(entry / "fd")):
                found.append(int(entry.name))
        except OSError:  # gone meanwhile, or another user's
            continue
    if not found:
        found = _lockers(real, proc)
    return [(pid, _command(proc / str(pid))) for pid in sorted(found)]


def _lockers(path: str, proc: Path) -> list[int]:
    """Pids from lines as ``1: FLOCK  ADVISORY  WRITE 812 00:06:341 0 EOF`` (proc_locks(5))."""
    try:
        node = os.stat(path)
        lines = (proc / "locks").read_text().splitlines()
    except OSError:
        return []
    inode = f"{os.major(node.st_dev):02x}:{os.minor(node.st_dev):02x}:{node.st_ino}"
    words = [line.split() for line in lines]
    return [int(w[4]) for w in words if len(w) > 5 and w[1] == "FLOCK" and w[5] == inode and int(w[4]) > 0]


def _command(entry: Path) -> str:
    """Program and, of an interpreter, its script. No further arguments: they may hold secrets."""
    try:
        words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        if words[0]:
            return " ".join([os.path.basename(words[0]), *(w for w in words[1:2] if w and not w.startswith("-"))])
        return (entry / "comm").read_text().strip()
    except OSError:
        return "a program"


def _permission(path: str, code: int) -> PortError:
    uid = os.geteuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    message = f"user {user} may not open {path}"
    try:
        node = os.stat(path)
    except OSError as error:
        return PortError("permission", message, f"a directory above it is closed to the user: {error.strerror}")
    if code == errno.EPERM:
        # Modes refuse with EACCES; EPERM comes from a device cgroup.
        return PortError(
            "permission",
            message,
            f"the service or container forbids the device: DeviceAllow={os.path.realpath(path)} rw",
        )
    try:
        entry = grp.getgrgid(node.st_gid)
        group, members = entry.gr_name, entry.gr_mem
    except KeyError:
        group, members = str(node.st_gid), []
    if node.st_mode & (stat.S_IRGRP | stat.S_IWGRP) != stat.S_IRGRP | stat.S_IWGRP or node.st_gid == 0:
        return PortError(
            "permission",
            f"{message}: its mode is {stat.filemode(node.st_mode)}, its group {group}",
            'a udev rule gives it to a group: SUBSYSTEM=="tty", GROUP="dialout", MODE="0660"',
        )
    if user in members and node.st_gid not in os.getgroups():
        return PortError(
            "permission",
            f"{message}: the user is in group {group}, but this process started before that",
            "start the service anew, or log in anew",
        )
    return PortError(
        "permission",
        f"{message}: it belongs to group {group}",
        f"add the user to group {group}: sudo usermod -aG {group} {user}, then start the agent anew",
    )
