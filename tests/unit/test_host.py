"""The host driver on a machine of the test's own, and on this one."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import ValidationError

from agent.driver import PortError
from agent.machine import Machine
from agent.model import Fault
from agent.testing import FakeContext
from drivers.host import Host, HostConfig

ALL = ("cpu", "load", "memory", "network", "temperatures", "uptime", "processes", "pi")


class Tree:
    """A machine as /proc, /sys and getloadavg(3) show it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.seconds = 100.0
        self.load: list[float] = [0.521484375, 0.58, 0.59]
        self.put("proc/stat", "cpu  100 0 50 800 50 0 0 0 10 0\ncpu0 1 2 3\n")
        memory = {"MemTotal": 1000, "MemFree": 10, "MemAvailable": 250, "SwapTotal": 100, "SwapFree": 75}
        memory |= dict.fromkeys(("Buffers", "Cached", "Shmem", "Active", "Inactive"), 0)
        self.put("proc/meminfo", "".join(f"{name}: {kb} kB\n" for name, kb in memory.items()) + "HugePages_Total: 0\n")
        self.put("proc/vmstat", "pswpin 0\npswpout 0\n")
        self.net(eth0=(1000, 2000), lo=(5, 5))
        for pid in (1, 22, 333):
            self.put(f"proc/{pid}/comm", "x")

    def put(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def net(self, **counts: tuple[int, int]) -> None:
        lines = [f"{name}:{rx} 1 0 0 0 0 0 0 {tx} 1 0 0 0 0 0 0" for name, (rx, tx) in counts.items()]
        self.put("proc/net/dev", "\n".join(["Inter-|", " face |", *lines, ""]))

    def machine(self, *groups: str) -> Machine:
        return Machine(groups or ALL, ["eth*"], lambda: self.seconds, self.root / "sys")

    def getloadavg(self) -> tuple[float, float, float]:
        if not self.load:
            raise OSError("Load averages are unobtainable")
        one, five, fifteen = self.load
        return one, five, fifteen


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    made = Tree(tmp_path)
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path / "proc"))
    monkeypatch.setattr(psutil, "getloadavg", made.getloadavg)
    return made


def test_a_first_reading_and_what_only_a_second_can_tell(tree: Tree) -> None:
    machine = tree.machine()
    first = {
        "load_1": 0.52,
        "load_5": 0.58,
        "load_15": 0.59,
        "memory_percent": 75.0,
        "memory_available": 256000,
        "swap_percent": 25.0,
        "net_eth0_rx": 1000,
        "net_eth0_tx": 2000,
        "processes": 3,
    }
    fields, faults = machine.read()
    assert fields.pop("uptime") == pytest.approx(time.clock_gettime(time.CLOCK_BOOTTIME), abs=5)
    assert (fields, faults) == (first, [])
    tree.put("proc/stat", "cpu  125 0 50 850 75 0 0 0 30 0\n")  # 25 busy of 100; the guest's 20 are within user
    tree.net(eth0=(6000, 2500))
    tree.seconds += 10
    fields, _ = machine.read()
    assert next(iter(fields)) == "cpu_percent"
    assert fields["cpu_percent"] == 25.0
    assert (fields["net_eth0_rx_rate"], fields["net_eth0_tx_rate"]) == (500.0, 50.0)
    assert set(machine.names()) == set(fields)


def test_counters_that_go_back_give_no_rate_and_no_nonsense(tree: Tree) -> None:
    machine = tree.machine("cpu", "network")
    machine.read()
    tree.seconds += 10
    tree.net(eth0=(10, 2500))
    tree.put("proc/stat", "cpu  200 0 50 800 20 0 0 0 0 0\n")  # iowait went back by 30: 100 busy of 70
    assert machine.read()[0] == {"cpu_percent": 100.0, "net_eth0_rx": 10, "net_eth0_tx": 2500}
    tree.seconds += 10
    tree.net(eth1=(1, 1))
    assert machine.read()[0] == {"net_eth1_rx": 1, "net_eth1_tx": 1}


@pytest.mark.parametrize(
    ("file", "group", "gone"),
    [
        ("proc/stat", "cpu", set()),
        ("proc/meminfo", "memory", {"memory_percent", "memory_available", "swap_percent"}),
        ("proc/net/dev", "network", {"net_eth0_rx", "net_eth0_tx"}),
    ],
)
@pytest.mark.parametrize("how", ["missing", "empty", "garbled"])
def test_a_group_that_fails_is_one_fault_and_takes_no_other_with_it(
    tree: Tree, file: str, group: str, gone: set[str], how: str
) -> None:
    complete = set(tree.machine().read()[0])
    (tree.root / file).unlink()
    if how != "missing":
        tree.put(file, "" if how == "empty" else "???\n???\nx: y z\n")
    fields, faults = tree.machine().read()
    if how == "empty" and group == "network":
        assert faults == []
    else:
        (fault,) = faults
        assert fault.kind == "unreadable"
        assert fault.detail.startswith(f"{group}: ")
    assert set(fields) == complete - gone


def test_a_load_that_cannot_be_had_is_a_fault_of_its_own(tree: Tree) -> None:
    tree.load.clear()
    fields, faults = tree.machine("load", "processes").read()
    assert fields == {"processes": 3}
    assert faults == [Fault("unreadable", "load: Load averages are unobtainable")]


def test_temperatures_have_names_that_stay_and_are_their_own(tree: Tree) -> None:
    for number, device, temperature in ((0, "nvme1", 35000), (1, "nvme0", 41000)):
        tree.put(f"sys/devices/{device}/x", "")
        chip = f"sys/class/hwmon/hwmon{number}"
        tree.put(f"{chip}/name", "nvme\n")
        tree.put(f"{chip}/temp1_input", f"{temperature}\n")
        (tree.root / chip / "device").symlink_to(tree.root / "sys/devices" / device)
    tree.put("sys/class/hwmon/hwmon2/name", "coretemp")
    tree.put("sys/class/hwmon/hwmon2/temp1_input", "50500")
    tree.put("sys/class/hwmon/hwmon2/temp1_label", "Package id 0")
    tree.put("sys/class/hwmon/hwmon2/temp2_input", "-1000")
    tree.put("sys/class/hwmon/hwmon3/name", "iwlwifi")
    tree.put("sys/class/hwmon/hwmon3/temp1_input", "")
    assert tree.machine("temperatures").read() == (
        {
            "temp_nvme_nvme1": 35.0,
            "temp_nvme_nvme0": 41.0,
            "temp_coretemp_Package id 0": 50.5,
            "temp_coretemp_temp2": -1.0,
        },
        [],
    )


def test_a_board_without_hwmon_has_thermal_zones(tree: Tree) -> None:
    tree.put("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
    tree.put("sys/class/thermal/thermal_zone0/temp", "48312\n")
    assert tree.machine("temperatures").read()[0] == {"temp_cpu-thermal": 48.312}


def test_the_flags_of_a_pi(tree: Tree) -> None:
    assert tree.machine("pi").read() == ({}, [])
    tree.put("sys/class/hwmon/hwmon1/name", "rpi_volt\n")
    tree.put("sys/class/hwmon/hwmon1/in0_lcrit_alarm", "1\n")
    assert tree.machine("pi").read()[0] == {"under_voltage": True}
    tree.put("sys/devices/platform/soc/soc:firmware/get_throttled", "50005\n")
    assert tree.machine("pi").read()[0] == {
        "under_voltage": True,
        "frequency_capped": False,
        "throttled": True,
        "soft_temperature_limit": False,
        "under_voltage_seen": True,
        "frequency_capped_seen": False,
        "throttled_seen": True,
        "soft_temperature_limit_seen": False,
    }


def test_disks(tmp_path: Path) -> None:
    machine = Machine((), (), time.monotonic)
    fields, faults = machine.read_disk("/", "root")
    assert faults == []
    st = os.statvfs("/")
    used = st.f_blocks - st.f_bfree
    assert fields["disk_root_percent"] == pytest.approx(100 * used / (used + st.f_bavail), abs=0.5)
    assert fields["disk_root_free"] == pytest.approx(st.f_bavail * st.f_frsize, rel=0.05)
    assert machine.read_disk(str(tmp_path), "x") == (
        {},
        [Fault("unreadable", f"{tmp_path}: nothing is mounted there")],
    )


def test_what_is_switched_off_is_not_read(tree: Tree) -> None:
    for group in ALL[:-1]:
        assert tree.machine(group).read()[1] == []
    for file in ("stat", "meminfo", "net/dev"):
        (tree.root / "proc" / file).unlink()
    tree.load.clear()
    assert tree.machine("processes").read() == ({"processes": 3}, [])
    off = dict.fromkeys(("cpu", "load", "memory", "temperatures", "uptime", "processes", "pi"), False)
    assert HostConfig(name="h", driver="host", network=(), **off).groups() == []
    assert set(HostConfig(name="h", driver="host").groups()) == set(ALL)


def test_the_uptime_is_the_kernels_and_no_wall_clocks() -> None:
    with open("/proc/uptime") as file:
        kernel = float(file.read().split()[0])
    assert Machine(["uptime"], (), time.monotonic).read()[0]["uptime"] == pytest.approx(kernel, abs=1)


def test_a_collection_costs_less_than_3_ms_of_cpu() -> None:
    machine = Machine(ALL, ["*"], time.monotonic)
    costs = []
    for _ in range(20):
        begin = time.thread_time()
        machine.read()
        machine.read_disk("/", "root")
        costs.append(time.thread_time() - begin)
    assert min(costs) < 0.003


# ---- the driver


def test_one_reading_at_the_start_and_one_an_interval() -> None:
    ctx = FakeContext("host")
    driver = ctx.start(Host, interval=10, network=["*"])
    ctx.run()
    assert len(ctx.samples) == 1
    assert ctx.faults == []
    assert "disk_root_percent" in ctx.samples[0].fields
    assert "cpu_percent" not in ctx.samples[0].fields
    ctx.advance(30)
    assert len(ctx.samples) == 4
    known = {channel.name for channel in driver.channels}
    assert set(ctx.samples[-1].fields) <= known
    units = {channel.name: channel.unit for channel in driver.channels}
    assert (units["disk_root_free"], units["uptime"], units["cpu_percent"], units["load_1"]) == ("B", "s", "%", "")


def test_a_disk_that_hangs_delays_one_reading_only_and_is_asked_again_once_it_is_back() -> None:
    ctx = FakeContext("host", work="deferred")
    ctx.start(Host, interval=10, disks=["/"])
    ctx.run()
    ctx.do_work(1)  # the machine itself has answered
    assert ctx.emitted == [], "waits for the disk"
    ctx.advance(5)  # and gives it up
    assert ["disk_root_free" in sample.fields for sample in ctx.samples] == [False]
    assert "uptime" in ctx.samples[0].fields
    assert ctx.faults == [Fault("timeout", "/ did not answer within 5 s")]
    ctx.advance(6)
    ctx.do_work()  # the disk is back in the course of the next reading, too late for it
    assert ["disk_root_free" in sample.fields for sample in ctx.samples] == [False, False]
    assert [fault.detail for fault in ctx.faults[1:]] == ["/ has not answered yet"]
    ctx.advance(9)
    ctx.do_work()
    assert ["disk_root_free" in sample.fields for sample in ctx.samples] == [False, False, True]
    assert len(ctx.faults) == 2


def test_a_slow_part_misses_its_reading_and_order_is_kept() -> None:
    ctx = FakeContext("host", work="deferred")
    ctx.start(Host, interval=2, disks=["/"])
    ctx.run()
    ctx.do_work(1)
    ctx.advance(2)  # the next reading begins: what is there of this one goes out first
    assert [("uptime" in s.fields, "disk_root_free" in s.fields) for s in ctx.samples] == [(True, False)]
    ctx.do_work()
    assert [f.detail for f in ctx.faults] == ["/ has not answered yet"]
    assert [("uptime" in s.fields, "disk_root_free" in s.fields) for s in ctx.samples] == [(True, False), (True, False)]
    ctx.advance(2)
    ctx.do_work()
    assert "disk_root_free" in ctx.samples[-1].fields
    assert len(ctx.samples) == 3


def test_a_defect_is_not_taken_for_a_slow_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AttributeError("a defect")

    monkeypatch.setattr(Machine, "read_disk", fail)
    ctx = FakeContext("host")
    ctx.start(Host, interval=2)
    with pytest.raises(AttributeError, match="a defect"):
        ctx.run()


def test_busy_workers_cost_a_reading_and_are_no_defect() -> None:
    ctx = FakeContext("host", work="rejected")
    ctx.start(Host, interval=2, disks=["/"])
    ctx.advance(3)
    assert (ctx.samples, ctx.losses) == ([], [])
    assert [fault.kind for fault in ctx.faults] == ["unreadable"] * 4  # the machine and its disk, twice
    assert "queue is full" in ctx.faults[0].detail


def test_without_psutil_the_device_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = builtins.__import__

    def refuse(name: str, *args: Any, **options: Any) -> Any:
        if name == "psutil":
            raise ModuleNotFoundError("No module named 'psutil'", name=name)
        return theirs(name, *args, **options)

    assert Host.lacks(HostConfig(name="h", driver="host")) is None
    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.delitem(sys.modules, "agent.machine")
    with pytest.raises(PortError, match="apt install python3-psutil") as caught:
        FakeContext("host").start(Host)
    assert caught.value.reason == "unsupported"


def test_check_tells_of_a_missing_psutil(tmp_path: Path) -> None:
    """In a process in which it cannot be imported; the configuration is good all the same."""
    file = tmp_path / "outstation.toml"
    file.write_text('[agent]\nid = "a"\n[mqtt]\nurls = ["mqtt://127.0.0.1"]\n[[device]]\nname = "h"\ndriver = "host"\n')
    code = "import sys; sys.modules['psutil'] = None; from agent.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "check", "-c", file], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "h: psutil cannot be imported" in done.stdout
    assert "apt install python3-psutil" in done.stdout


@pytest.mark.parametrize("disks", [["data"], ["/mnt/data", "/mnt_data"]])
def test_disks_that_make_no_sense_are_refused(disks: list[str]) -> None:
    with pytest.raises(ValidationError, match=r"begins with /|same name"):
        HostConfig(name="h", driver="host", disks=disks)
