"""One machine's state as fields of a reading, group by group, by psutil. It may block, so it runs on a worker.

Imported when a device needs it: psutil takes 13 ms and is not on every machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, TypeAlias

import psutil

from agent import sysfs
from agent.model import Channel, Fault, Value

Part: TypeAlias = tuple[dict[str, Value], list[Fault]]

UNREADABLE: Final = (OSError, ValueError, LookupError, ArithmeticError, TypeError, AssertionError)
"""What psutil raises of a file that is refused, or is not what proc(5) says (the last two: a line is too short)."""

UNITS: Final = {"percent": "%", "available": "B", "free": "B", "rx": "B", "tx": "B", "rate": "B/s", "uptime": "s"}
CLASSES: Final = {"B": "data_size", "B/s": "data_rate", "s": "duration", "°C": "temperature"}


class Machine:
    """Reads the groups that are switched on, and keeps what CPU and network rates are counted from.

    Groups: cpu, load, memory, network, temperatures, uptime, processes, pi.
    """

    def __init__(
        self,
        groups: Collection[str],
        interfaces: Sequence[str],
        now: Callable[[], float],
        root: Path = sysfs.ROOT,
    ) -> None:
        """interfaces: patterns of their names; now: monotonic seconds; root: another /sys, for tests."""
        self._interfaces = interfaces
        self._now = now
        self._root = root
        self._cpu: tuple[float, float] | None = None
        self._network: tuple[float, dict[str, tuple[int, int]]] | None = None
        self._sensors = sysfs.sensors(root) if "temperatures" in groups else []
        self._pi = sysfs.pi_files(root)
        known: dict[str, Callable[[], dict[str, Value]]] = {
            "cpu": self._read_cpu,
            # Two digits, as the kernel shows them; getloadavg(3) of today gives sixteen bits of fraction.
            "load": lambda: {
                f"load_{minutes}": round(load, 2) for minutes, load in zip((1, 5, 15), psutil.getloadavg(), strict=True)
            },
            "memory": self._read_memory,
            "network": self._read_network,
            "temperatures": self._read_temperatures,
            # Not psutil.boot_time(): that is the wall clock's, wrong on a board without a clock battery.
            "uptime": lambda: {"uptime": round(time.clock_gettime(time.CLOCK_BOOTTIME), 2)},
            "processes": _processes,
            "pi": lambda: {**sysfs.pi_flags(self._pi)},
        }
        self._groups = {name: read for name, read in known.items() if name in groups}

    def read(self) -> Part:
        """Everything but disks; a Fault for each group that cannot be read."""
        fields: dict[str, Value] = {}
        faults: list[Fault] = []
        for name, read in self._groups.items():
            try:
                fields |= read()
            except UNREADABLE as error:
                faults.append(Fault("unreadable", f"{name}: {error}"))
        return fields, faults

    def read_disk(self, mount: str, label: str) -> Part:
        """One file system, as df(1) counts it. May hang for as long as a network file system is away."""
        try:
            if not os.path.ismount(mount):  # statvfs would speak of the file system beneath, in silence
                raise OSError("nothing is mounted there")
            usage = psutil.disk_usage(mount)
        except UNREADABLE as error:
            return {}, [Fault("unreadable", f"{mount}: {error}")]
        return {f"disk_{label}_percent": usage.percent, f"disk_{label}_free": usage.free}, []

    def names(self) -> list[str]:
        """The fields that ``read`` has as a rule, those included that only the second reading has."""
        names = ["cpu_percent"] if "cpu" in self._groups else []
        for name in Machine(self._groups, self._interfaces, self._now, self._root).read()[0]:
            names.append(name)
            if name.startswith("net_") and name.endswith("_tx"):
                names += [f"{name[:-3]}_rx_rate", f"{name}_rate"]
        return names

    def _read_cpu(self) -> dict[str, Value]:
        """Of all cores; waiting for a disk counts as idle. Not cpu_percent(), which counts for each thread apart."""
        times = psutil.cpu_times()
        # A guest's time is in user and nice too (proc_stat(5)).
        total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        busy = total - times.idle - times.iowait
        before, self._cpu = self._cpu, (busy, total)
        if before is None or total <= before[1]:
            return {}
        share = (busy - before[0]) / (total - before[1])
        return {"cpu_percent": round(100 * min(1.0, max(0.0, share)), 1)}  # iowait may go backwards (proc_stat(5))

    def _read_memory(self) -> dict[str, Value]:
        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        fields: dict[str, Value] = {"memory_percent": memory.percent, "memory_available": memory.available}
        if swap.total:
            fields["swap_percent"] = swap.percent
        return fields

    def _read_network(self) -> dict[str, Value]:
        fields: dict[str, Value] = {}
        # nowrap would add up what was counted before an interface went and came back, in a table of psutil's own.
        at, found = self._now(), psutil.net_io_counters(pernic=True, nowrap=False)
        counts = {
            name: (count.bytes_recv, count.bytes_sent)
            for name, count in found.items()
            if any(fnmatchcase(name, pattern) for pattern in self._interfaces)
        }
        before, self._network = self._network, (at, counts)
        for name, (rx, tx) in counts.items():
            fields |= {f"net_{name}_rx": rx, f"net_{name}_tx": tx}
            if before is None or name not in before[1] or at <= before[0]:
                continue
            rx_before, tx_before = before[1][name]
            if rx >= rx_before and tx >= tx_before:  # else it was away, or its counter has wrapped
                seconds = at - before[0]
                fields[f"net_{name}_rx_rate"] = round((rx - rx_before) / seconds, 1)
                fields[f"net_{name}_tx_rate"] = round((tx - tx_before) / seconds, 1)
        return fields

    def _read_temperatures(self) -> dict[str, Value]:
        fields: dict[str, Value] = {}
        for sensor in self._sensors:
            try:
                fields[f"temp_{sensor.name}"] = sysfs.temperature(sensor)
            except (OSError, ValueError):  # none now: a radio that is off, a disk that sleeps or was pulled
                continue
        return fields


def _processes() -> dict[str, Value]:
    pids = psutil.pids()
    # Without process 1 we see our own alone (hidepid of proc(5), ProtectProc= of systemd.exec(5)): no number, not a
    # wrong one.
    return {"processes": len(pids)} if 1 in pids else {}


def channel(name: str) -> Channel:
    """A field as people and Home Assistant know it, by the words of its name."""
    unit = "°C" if name.startswith("temp_") else UNITS.get(name.rpartition("_")[2], "")
    counts = name == "uptime" or name.endswith(("_rx", "_tx"))
    return Channel(
        name,
        unit,
        device_class=CLASSES.get(unit),
        state_class="total_increasing" if counts else "measurement",
    )
