"""One machine's state as fields of a reading, group by group. It may block, so it runs on a worker."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

from agent import procfs
from agent.model import Fault, Value

CORE: Final = "host"
"""The part of a reading that is everything but disks; the others are mount points."""

Part: TypeAlias = tuple[dict[str, Value], list[Fault]]


def label(mount: str) -> str:
    """What a disk is called in readings: "/" is root, "/mnt/data" mnt_data."""
    return mount.strip("/").replace("/", "_") or "root"


class Machine:
    """Reads the groups that are switched on, and keeps what CPU and network rates are counted from.

    Groups: cpu, load, memory, network, temperatures, uptime, processes, pi. 0.3 ms of CPU for all of them and a disk
    (on a 2 GHz core; ten sensors add 0.2 ms), most of it in the kernel.
    """

    def __init__(
        self,
        groups: Collection[str],
        interfaces: Sequence[str],
        now: Callable[[], float],
        root: Path = procfs.ROOT,
    ) -> None:
        """interfaces: patterns of their names; now: monotonic seconds; root: another tree, for tests."""
        self._interfaces = interfaces
        self._now = now
        self._root = root
        self._cpu: procfs.CpuTimes | None = None
        self._network: tuple[float, dict[str, tuple[int, int]]] | None = None
        self._sensors = procfs.sensors(root) if "temperatures" in groups else []
        self._pi = procfs.pi_files(root)
        known: dict[str, Callable[[], dict[str, Value]]] = {
            "cpu": self._read_cpu,
            "load": self._read_load,
            "memory": self._read_memory,
            "network": self._read_network,
            "temperatures": self._read_temperatures,
            "uptime": lambda: {"uptime": procfs.uptime(root)},
            "processes": lambda: {"processes": procfs.processes(root)},
            "pi": lambda: {**procfs.pi_flags(self._pi)},
        }
        self._groups = {name: read for name, read in known.items() if name in groups}

    def read(self, part: str) -> Part:
        """Fields of CORE or of one mount point, and a Fault for each group that cannot be read."""
        fields: dict[str, Value] = {}
        faults: list[Fault] = []
        for name, read in self._groups.items() if part == CORE else [(part, partial(self._read_disk, part))]:
            try:
                fields |= read()
            except (OSError, ValueError, LookupError, ArithmeticError) as error:
                faults.append(Fault("unreadable", f"{name}: {error}"))
        return fields, faults

    def names(self, part: str) -> list[str]:
        """The fields that a part has as a rule, those included that only the second reading has."""
        if part != CORE:
            return [f"disk_{label(part)}_percent", f"disk_{label(part)}_free"]
        names = ["cpu_percent"] if "cpu" in self._groups else []
        for name in Machine(self._groups, self._interfaces, self._now, self._root).read(CORE)[0]:
            names.append(name)
            if name.startswith("net_") and name.endswith("_tx"):
                names += [f"{name[:-3]}_rx_rate", f"{name}_rate"]
        return names

    def _read_cpu(self) -> dict[str, Value]:
        before, self._cpu = self._cpu, procfs.cpu_times(self._root)
        if before is None or self._cpu.total <= before.total:
            return {}
        share = (self._cpu.busy - before.busy) / (self._cpu.total - before.total)
        return {"cpu_percent": round(100 * min(1.0, max(0.0, share)), 1)}  # iowait may go backwards (proc_stat(5))

    def _read_load(self) -> dict[str, Value]:
        return dict(zip(("load_1", "load_5", "load_15"), procfs.load(self._root), strict=True))

    def _read_memory(self) -> dict[str, Value]:
        found = procfs.memory(self._root)
        total, available, swap = found["MemTotal"], found["MemAvailable"], found.get("SwapTotal", 0)
        fields: dict[str, Value] = {
            "memory_percent": round(100 * (total - available) / total, 1),
            "memory_available": available,
        }
        if swap:
            fields["swap_percent"] = round(100 * (swap - found["SwapFree"]) / swap, 1)
        return fields

    def _read_network(self) -> dict[str, Value]:
        fields: dict[str, Value] = {}
        at, counts = self._now(), procfs.network(self._root)
        before, self._network = self._network, (at, counts)
        for name, (rx, tx) in counts.items():
            if not any(fnmatchcase(name, pattern) for pattern in self._interfaces):
                continue
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
                fields[f"temp_{sensor.name}"] = procfs.temperature(sensor)
            except (OSError, ValueError):  # none now: a radio that is off, a disk that sleeps or was pulled
                continue
        return fields

    def _read_disk(self, mount: str) -> dict[str, Value]:
        disk = procfs.disk(mount, self._root)
        return {f"disk_{label(mount)}_percent": disk.percent, f"disk_{label(mount)}_free": disk.free}
