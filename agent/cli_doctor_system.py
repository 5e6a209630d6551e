"""What `outstation doctor` looks at beside the configuration: disk, clock, wear, the service and what it may open."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from agent.clock import BUILT_NS, Kernel, rfc3339
from agent.ports_errors import holders

FULL = 50_000_000
"""Bytes below which a disk counts as full: SQLite needs room to tidy up as well."""
UNIT: Final = "outstation.service"
EX_CONFIG: Final = "78"

_PRE_EOL: Final = {2: "80 %", 3: "90 %"}
"""Of the reserved blocks used up (JEDEC JESD84-B51, section 7.4, PRE_EOL_INFO); 1 is normal."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. problem: the agent does not work so; warning: it does, for now or in part."""

    check: str
    level: Literal["ok", "warning", "problem"]
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Unit:
    """What systemd says of the agent's unit, in its own words (org.freedesktop.systemd1(5)); "" where there is none."""

    load: str = ""
    state: str = ""
    file: str = ""
    """UnitFileState: enabled, disabled, masked ..."""
    result: str = ""
    """Result of the last run: success, exit-code, watchdog, oom-kill ..."""
    status: str = ""
    """Exit status of the last run."""
    user: str = ""
    dynamic: bool = False
    groups: tuple[str, ...] = ()

    @property
    def installed(self) -> bool:
        return self.load == "loaded"


_PROPERTIES: Final = "LoadState,ActiveState,UnitFileState,Result,ExecMainStatus,User,DynamicUser,SupplementaryGroups"


def unit() -> Unit:
    """Ask systemctl(1), where systemd runs (sd_booted(3)); it waits 10 s at most."""
    if not os.path.isdir("/run/systemd/system"):
        return Unit()
    command = ["systemctl", "show", f"--property={_PROPERTIES}", UNIT]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return Unit()
    return unit_of(done.stdout)


def unit_of(text: str) -> Unit:
    """From lines ``LoadState=loaded``, as `systemctl show` writes them."""
    said = dict(line.partition("=")[::2] for line in text.splitlines())
    return Unit(
        load=said.get("LoadState", ""),
        state=said.get("ActiveState", ""),
        file=said.get("UnitFileState", ""),
        result=said.get("Result", ""),
        status=said.get("ExecMainStatus", ""),
        user=said.get("User", ""),
        dynamic=said.get("DynamicUser") == "yes",
        groups=tuple(said.get("SupplementaryGroups", "").split()),
    )


def systemd(unit: Unit) -> Iterator[Finding]:
    """Whether the unit is installed, starts at boot, and runs."""
    look = f"journalctl -u {UNIT} -n 50 tells why"
    if unit.load == "masked" or unit.file == "masked":
        yield Finding("systemd", "problem", f"{UNIT} is masked: it cannot be started", f"systemctl unmask {UNIT}")
    elif unit.load == "not-found":
        yield Finding("systemd", "warning", f"{UNIT} is not installed", "deploy/README.md tells how to install it")
    elif unit.load and not unit.installed:
        remedy = f"systemd-analyze verify {UNIT} shows where"
        yield Finding("systemd", "problem", f"{UNIT} cannot be loaded ({unit.load})", remedy)
    elif unit.installed:
        if unit.state == "active":
            yield Finding("systemd", "ok", f"{UNIT} is active")
        elif unit.state == "failed" and unit.status == EX_CONFIG:
            remedy = f"mend the configuration, then: systemctl restart {UNIT}"
            yield Finding("systemd", "problem", f"{UNIT} has failed: its configuration was wrong (status 78)", remedy)
        elif unit.state == "failed":
            why = f"{unit.result}, status {unit.status}"
            yield Finding("systemd", "problem", f"{UNIT} has failed ({why})", look)
        elif unit.state == "activating" and unit.result not in ("", "success"):
            why = f"{unit.result}, status {unit.status}"
            yield Finding("systemd", "problem", f"{UNIT} ends and is started again ({why})", look)
        else:
            yield Finding("systemd", "warning", f"{UNIT} is {unit.state}", f"systemctl start {UNIT}")
        if unit.file == "disabled":
            yield Finding("systemd", "warning", f"{UNIT} does not start at boot", f"systemctl enable {UNIT}")
        for group in unit.groups:
            if _gid(group) is None:
                remedy = f"groupadd --system {group}, or take it out of SupplementaryGroups= (systemctl edit {UNIT})"
                text = f"{UNIT} wants the group {group}, which is not there: it cannot start (status 216)"
                yield Finding("systemd", "problem", text, remedy)


def rights(name: str, node: str, unit: Unit) -> Iterator[Finding]:
    """Whether the service may open this device, by its user and groups; whoever asks may be root and open all."""
    account = _account(unit)
    if not unit.installed or account is None:
        return
    try:
        status = os.stat(node)
    except OSError:  # gone meanwhile
        return
    uid, gids = account
    mode = status.st_mode
    if uid == status.st_uid:
        may = mode & stat.S_IRUSR and mode & stat.S_IWUSR
    elif status.st_gid in gids:
        may = mode & stat.S_IRGRP and mode & stat.S_IWGRP
    else:
        may = mode & stat.S_IROTH and mode & stat.S_IWOTH
    if may:
        return
    group = _group_name(status.st_gid)
    text = f"{name}: the service {UNIT} may not open {node} ({stat.filemode(mode)}, group {group})"
    if status.st_gid and status.st_gid not in gids and mode & stat.S_IRGRP and mode & stat.S_IWGRP:
        remedy = f"systemctl edit {UNIT}: [Service], SupplementaryGroups={group}; then restart it"
    else:
        remedy = f'a udev rule gives it to a group of the service: GROUP="{(*unit.groups, "dialout")[0]}", MODE="0660"'
    yield Finding("rights", "problem", text, remedy)


def _account(unit: Unit) -> tuple[int, set[int]] | None:
    """The service's user, -1 for one that systemd makes, and its groups; None: root, or nobody knows."""
    groups = {gid for group in unit.groups if (gid := _gid(group)) is not None}
    if unit.dynamic:
        return -1, groups
    try:
        entry = pwd.getpwuid(int(unit.user)) if unit.user.isdecimal() else pwd.getpwnam(unit.user)
    except KeyError:
        return None
    if entry.pw_uid == 0:
        return None
    return entry.pw_uid, groups | set(os.getgrouplist(entry.pw_name, entry.pw_gid))


def _gid(group: str) -> int | None:
    try:
        return int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError:
        return None


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def clock(kernel: Kernel, wall_ns: int) -> Iterator[Finding]:
    """Whether the time can be right, and whether the kernel calls it synchronised (adjtimex(2)). wall_ns: now."""
    if wall_ns < BUILT_NS:
        text = f"it shows {rfc3339(wall_ns)[:19]}Z, before this release was made"
        yield Finding("clock", "problem", text, "timedatectl set-ntp true; a battery clock helps where no network is")
    elif kernel.synchronised():
        yield Finding("clock", "ok", "synchronised")
    else:
        remedy = "timedatectl shows why; without a time server or in a container see clock.trust"
        yield Finding("clock", "warning", "the kernel does not call its clock synchronised", remedy)


def disk(file: Path) -> Iterator[Finding]:
    """Whether the outbox can be written, and has room."""
    folder = next(folder for folder in file.parents if folder.exists())
    space = os.statvfs(folder)
    if space.f_flag & os.ST_RDONLY:
        remedy = "dmesg tells why; a worn SD card goes read-only at its end: replace it"
        yield Finding("disk", "problem", f"the file system of {file} is read-only", remedy)
        return
    if not os.access(file if file.exists() else folder, os.W_OK):
        remedy = "run this as the agent's user; else give it the directory: chown, or StateDirectory= in its unit"
        yield Finding("disk", "problem", f"this user may not write {file}", remedy)
    if space.f_files and not space.f_favail:
        yield Finding("disk", "problem", f"no inode is free for {file}", "remove small files: df -i shows where")
    free = shutil.disk_usage(folder).free
    text = f"{free // 1_000_000} MB free for {file}"
    if free < FULL:
        yield Finding("disk", "problem", text, "make room: journalctl --vacuum-size=50M, apt-get clean")
    else:
        yield Finding("disk", "ok", text)


def wear(sys: Path) -> Iterator[Finding]:
    """What eMMC says of its wear (JEDEC JESD84-B51, section 7.4): DEVICE_LIFE_TIME_EST, 1 to 10 tenths and 11 past it,
    and PRE_EOL_INFO. SD cards say nothing."""
    replace = "replace it soon; durability = spill or memory writes least"
    for card in sorted(sys.glob("block/mmcblk*/device")):
        name = card.parent.name
        worst = max(_hexadecimal(card / "life_time"), default=0)
        reserve = _PRE_EOL.get(max(_hexadecimal(card / "pre_eol_info"), default=0))
        text = f"{name} has used {min(worst, 10) * 10} % of its life"
        if reserve is not None:
            yield Finding("wear", "warning", f"{name} has used {reserve} of its reserved blocks", replace)
        if worst >= 9:
            yield Finding("wear", "warning", text, replace)
        elif worst > 0 and reserve is None:
            yield Finding("wear", "ok", text)


def _hexadecimal(file: Path) -> list[int]:
    """Of a file as ``0x01 0x02``; nothing where it is not there or holds something else."""
    try:
        return [int(word, 16) for word in file.read_text().split()]
    except (OSError, ValueError):
        return []


def may_run(lock: Path, state: str) -> bool:
    """Whether an agent of ours runs here, as far as can be told: an outbox that is closed to this user may be in use.

    state: of the unit, whose outbox may be another than that of whoever asks.
    """
    try:
        lock.stat()
    except FileNotFoundError:
        return state in ("active", "activating", "reloading")
    except OSError:
        return True
    return bool(holders(str(lock))) or state in ("active", "activating", "reloading")
