"""What the kernel says of this machine, read from /proc and /sys: plain numbers, no state, no library.

Every function takes ``root``, so that tests give a tree of their own. Each raises OSError where its file is refused and
ValueError or LookupError where it is not what proc(5) says; what a machine does not have is left out.

psutil knows the same. It needs a compiler on 32-bit Pis and 13 ms at start, and takes no root; its boot time is that of
the wall clock, its cpu_percent() one for each thread. A test holds these figures against psutil's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path("/")


class CpuTimes(NamedTuple):
    """Clock ticks of all cores since boot."""

    busy: int
    total: int


class Disk(NamedTuple):
    """A file system, as df(1) counts it: ``free`` is what a user other than root may still write, in bytes."""

    percent: float
    free: int
    total: int


class Sensor(NamedTuple):
    """One temperature: a name that is unique on this machine, and the file that holds it, in thousandths of °C."""

    name: str
    path: Path


def cpu_times(root: Path = ROOT) -> CpuTimes:
    """Of all cores (/proc/stat, proc_stat(5)). Waiting for a disk counts as idle, a guest's time as its host's."""
    with open(root / "proc/stat", "rb") as file:
        words = file.readline().split()
    if words[0] != b"cpu":
        raise ValueError("/proc/stat does not begin with the sum of all cores")
    ticks = [int(word) for word in words[1:9]]  # user nice system idle iowait irq softirq steal; guests are in user
    total = sum(ticks)
    return CpuTimes(total - ticks[3] - ticks[4], total)


def load(root: Path = ROOT) -> tuple[float, float, float]:
    """Load average of 1, 5 and 15 minutes (proc_loadavg(5))."""
    one, five, fifteen = (root / "proc/loadavg").read_bytes().split()[:3]
    return float(one), float(five), float(fifteen)


def memory(root: Path = ROOT) -> dict[str, int]:
    """Bytes by the names of proc_meminfo(5): MemTotal, MemAvailable, SwapTotal, SwapFree ..."""
    found = {}
    for line in (root / "proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        found[name] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    return found


def network(root: Path = ROOT) -> dict[str, tuple[int, int]]:
    """Bytes received and sent by each interface since it came up (/proc/net/dev, proc_pid_net(5)).

    Counters of 32-bit drivers wrap, and an interface that goes and comes back begins at 0.
    """
    found = {}
    for line in (root / "proc/net/dev").read_text().splitlines()[2:]:
        name, _, rest = line.rpartition(":")
        words = rest.split()
        found[name.strip()] = int(words[0]), int(words[8])
    return found


def uptime(root: Path = ROOT) -> float:
    """Seconds since boot, times of suspension included; no clock, right or wrong, plays a part (proc_uptime(5))."""
    return float((root / "proc/uptime").read_bytes().split()[0])


def processes(root: Path = ROOT) -> int:
    """How many processes this user may see (all, but where /proc is mounted with hidepid)."""
    return sum(map(str.isdigit, os.listdir(root / "proc")))


def disk(mount: str, root: Path = ROOT) -> Disk:
    """Of the file system mounted at ``mount``. May hang for as long as a network file system is away.

    Raises OSError where nothing is mounted: statvfs would speak of the file system beneath, in silence.
    """
    path = os.path.join(root, mount.lstrip("/"))
    if not os.path.ismount(path) and root == ROOT:
        raise OSError("nothing is mounted there")
    st = os.statvfs(path)
    used = st.f_blocks - st.f_bfree
    shared = used + st.f_bavail  # without what is reserved for root, so that full is 100 %
    return Disk(round(100 * used / shared, 1) if shared else 0.0, st.f_bavail * st.f_frsize, st.f_blocks * st.f_frsize)


def sensors(root: Path = ROOT) -> list[Sensor]:
    """The temperatures of this machine (Documentation/hwmon/sysfs-interface.rst), else its thermal zones.

    Named by chip and label; equal names by their device too, as hwmon's own numbers change from boot to boot.
    """
    found = list(_hwmon(root))
    if not found:
        zones = sorted((root / "sys/class/thermal").glob("thermal_zone*/temp"))
        found = [(_text(path.parent / "type") or path.parent.name, path.parent.name, path) for path in zones]
    names = [name for name, _, _ in found]
    return [Sensor(name if names.count(name) == 1 else f"{name}_{device}", path) for name, device, path in found]


def _hwmon(root: Path) -> Iterator[tuple[str, str, Path]]:
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        inputs = sorted(chip.glob("temp*_input"))
        for path in inputs:
            point = path.name.removesuffix("_input")
            label = _text(chip / f"{point}_label") or (point if len(inputs) > 1 else "")
            name = _text(chip / "name") or chip.name
            yield f"{name}_{label}" if label else name, os.path.basename(os.path.realpath(chip / "device")), path


def temperature(sensor: Sensor) -> float:
    """°C. Raises OSError where the sensor has none now: a radio that is off, a disk that sleeps."""
    return int(sensor.path.read_bytes()) / 1000


_THROTTLED: Final = {0: "under_voltage", 1: "frequency_capped", 2: "throttled", 3: "soft_temperature_limit"}


class PiFlags(NamedTuple):
    """Where a Raspberry Pi's kernel tells of its supply; None where it does not."""

    throttled: Path | None
    alarm: Path | None


def pi_files(root: Path = ROOT) -> PiFlags:
    """The firmware's word (Raspberry Pi's kernels), and the alarm of the driver rpi_volt (every kernel)."""
    words = sorted((root / "sys/devices/platform").glob("soc*/soc*:firmware/get_throttled"))
    alarms = [
        chip / "in0_lcrit_alarm"
        for chip in sorted((root / "sys/class/hwmon").glob("hwmon*"))
        if _text(chip / "name") == "rpi_volt"
    ]
    return PiFlags(words[0] if words else None, alarms[0] if alarms else None)


def pi_flags(files: PiFlags) -> dict[str, bool]:
    """What holds now, and what was seen since boot: bits 0-3 and 16-19 of `vcgencmd get_throttled`."""
    if files.throttled is not None:
        bits = int(files.throttled.read_text(), 16)
        now = {name: bool(bits >> bit & 1) for bit, name in _THROTTLED.items()}
        return now | {f"{name}_seen": bool(bits >> bit + 16 & 1) for bit, name in _THROTTLED.items()}
    if files.alarm is not None:
        return {"under_voltage": int(files.alarm.read_text()) != 0}
    return {}


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
