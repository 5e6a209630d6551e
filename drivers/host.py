"""The machine that the agent runs on: CPU, load, memory, disks, network, temperatures, uptime, processes, supply.

Device: any Linux machine; Raspberry Pis also tell of under-voltage and throttling. One reading each ``interval``.

Source: psutil, which has to be installed; of temperatures the kernel's Documentation/hwmon/sysfs-interface.rst; of the
Pi's flags `vcgencmd get_throttled` in the Raspberry Pi documentation.

- ``cpu_percent`` of all cores since the reading before; ``load_1``, ``load_5``, ``load_15``
- ``memory_percent``, ``memory_available``, ``swap_percent`` (where there is swap)
- of each of ``disks``: ``disk_root_percent``, ``disk_root_free``; "/mnt/data" is ``disk_mnt_data_...``
- of each interface that ``network`` fits: ``net_eth0_rx``, ``net_eth0_tx`` (bytes since it came up) and
  ``net_eth0_rx_rate``, ``net_eth0_tx_rate`` (bytes a second since the reading before)
- ``temp_<chip>_<label>`` of each sensor in °C; ``uptime`` in seconds, whatever the clock says; ``processes``
- ``under_voltage``, ``frequency_capped``, ``throttled``, ``soft_temperature_limit``: now; with ``_seen``: since boot

What the machine does not have is left out. ``cpu_percent`` and rates come with the second reading. A group that fails
is a fault and takes no other with it; each disk is asked by itself, as a network file system may not answer.

Sample::

    [[device]]
    name = "host"
    driver = "host"
    interval = "10s"
    disks = ["/", "/mnt/data"]
    network = ["eth*", "wlan*"]
    processes = false
"""

from __future__ import annotations

from typing import Final

from pydantic import ConfigDict, Field, field_validator

from agent.driver import DeviceConfig, Done, Driver, Port, PortError
from agent.driver_parts import Ask, Collection
from agent.quantity import Interval

CORE: Final = "host"
"""The part of a reading that is everything but disks; the others are mount points."""


class HostConfig(DeviceConfig):
    """What is read of the machine, and how often."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    interval: Interval = Field(10.0, description="Time between two readings.")
    cpu: bool = Field(True, description="CPU time used.")
    load: bool = Field(True, description="Load averages.")
    memory: bool = Field(True, description="Memory and swap.")
    disks: tuple[str, ...] = Field(("/",), description="Mount points; [] for none.")
    network: tuple[str, ...] = Field(
        ("eth*", "en*", "wl*", "ww*", "usb*"), description='Patterns of interfaces; "*" takes bridges and tunnels too.'
    )
    temperatures: bool = Field(True, description="Temperature sensors.")
    uptime: bool = Field(True, description="Time since boot.")
    processes: bool = Field(True, description="Number of processes; left out where /proc shows our own alone.")
    pi: bool = Field(True, description="Under-voltage and throttling of a Raspberry Pi.")

    @field_validator("disks")
    @classmethod
    def _absolute(cls, disks: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [mount for mount in disks if not mount.startswith("/")]:
            raise ValueError(f"a mount point begins with /: {', '.join(wrong)}")
        if len({*map(label, disks)}) != len(disks):
            raise ValueError("two disks have the same name in readings")
        return disks

    def groups(self) -> list[str]:
        """What is switched on."""
        on = [
            name
            for name in ("cpu", "load", "memory", "temperatures", "uptime", "processes", "pi")
            if getattr(self, name)
        ]
        return [*on, "network"] if self.network else on


class Host(Driver):
    """The machine itself: CPU, memory, disks, network, temperatures, uptime, a Pi's under-voltage."""

    Config = HostConfig

    @classmethod
    def lacks(cls, config: HostConfig) -> str | None:  # noqa: ARG003
        try:
            import psutil  # noqa: F401
        except ImportError as error:
            return (
                f"psutil cannot be imported ({error}); pip install psutil, or on Debian apt install python3-psutil, "
                "which a virtual environment sees that was made with --system-site-packages"
            )
        return None

    def open(self) -> None:
        """Look what the machine has. May block: runs on a worker."""
        if missing := self.lacks(self.config):
            raise PortError("unsupported", missing)
        from agent.machine import Machine, channel

        self._machine = Machine(self.config.groups(), self.config.network, self.ctx.now)
        disks = [f"disk_{label(mount)}_{what}" for mount in self.config.disks for what in ("percent", "free")]
        self.channels = tuple(map(channel, [*self._machine.names(), *disks]))

    def start(self, port: Port | None) -> None:  # noqa: ARG002
        disks: dict[str, Ask] = {mount: (self._machine.read_disk, mount, label(mount)) for mount in self.config.disks}
        self._collection = Collection(self.ctx, {CORE: (self._machine.read,), **disks})
        self.ctx.every(self.config.interval, self._collection.begin, first_after=0.0, name="collect")

    def read_now(self, done: Done) -> None:
        self._collection.read_now(done)


def label(mount: str) -> str:
    """What a disk is called in readings: "/" is root, "/mnt/data" mnt_data."""
    return mount.strip("/").replace("/", "_") or "root"
