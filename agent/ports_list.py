"""The serial ports of this machine, what is behind them, and which of them a ``usb:`` name means. Read from /sys.

Every function takes the roots of its trees, so that tests give trees of their own. A look costs 0.2 ms a port.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.errors import PortError

SYS: Final = Path("/sys")
DEV: Final = Path("/dev")

FORM: Final = "usb:VID:PID, usb:VID:PID:SERIAL or usb:VID:PID:SERIAL:INTERFACE, the ids in four hexadecimal digits"
_NAME: Final = re.compile(r"usb:([0-9a-f]{4}):([0-9a-f]{4})(?::([^:]*)(?::([0-9a-f]{2}))?)?", re.IGNORECASE)

_NO_UART: Final = "0"  # PORT_UNKNOWN (linux/serial_core.h): 8250 reserves ttyS0 to 3 whether there is a chip or not
_SHOWN: Final = 8  # ports that a remedy lists


@dataclass(frozen=True, slots=True)
class SerialDevice:
    """One serial port that has hardware. ``usb`` is None for all that does not hang on USB."""

    path: str
    driver: str
    """Of the kernel: ftdi_sio, ch341-uart, cdc_acm, serial8250 ..."""
    usb: UsbIdentity | None
    links: tuple[str, ...]
    """Stable names that udev gave it, those by id first."""


@dataclass(frozen=True, slots=True)
class UsbIdentity:
    """What a USB device says of itself: ids as four hexadecimal digits, texts as the device has them, "" for none."""

    vid: str
    pid: str
    serial: str
    interface: str
    product: str
    manufacturer: str

    def fits(self, name: UsbName) -> bool:
        return (
            (self.vid, self.pid) == (name.vid, name.pid)
            and name.serial in ("", self.serial)
            and name.interface in ("", self.interface)
        )

    @property
    def name(self) -> str:
        """As a configuration names it, with the serial number if there is one."""
        return f"usb:{self.vid}:{self.pid}" + (f":{self.serial}" if self.serial and ":" not in self.serial else "")


@dataclass(frozen=True, slots=True)
class UsbName:
    """A ``usb:`` name taken apart; serial and interface are "" where any will do."""

    vid: str
    pid: str
    serial: str = ""
    interface: str = ""


def is_usb(port: str) -> bool:
    return port[:4].lower() == "usb:"


def parse(port: str) -> UsbName:
    """``usb:0403:6001:A50285BI`` taken apart. Raises ValueError, which names the form."""
    match = _NAME.fullmatch(port)
    if match is None:
        raise ValueError(f"write {FORM}, as usb:0403:6001 (lsusb shows the ids)")
    vid, pid, serial, interface = match.groups()
    return UsbName(vid.lower(), pid.lower(), serial or "", (interface or "").lower())


def resolve(port: str, *, sys: Path = SYS, dev: Path = DEV) -> str:
    """The path of the one port that a ``usb:`` name means now. Raises PortError: none, or several, which it lists."""
    try:
        name = parse(port)
    except ValueError as error:
        raise PortError("unsupported", f"{port} is no name of a port", str(error)) from error
    present = [device for device in serial_devices(sys=sys, dev=dev) if device.usb]
    fitting = [device for device in present if device.usb and device.usb.fits(name)]
    if len(fitting) == 1:
        return fitting[0].path
    if not fitting:
        here = f"; now here: {_listed(present)}" if present else "; no USB serial device is here now"
        raise PortError("missing", f"{port} is not plugged in", f"plug the device in{here}")
    serials = {device.usb.serial for device in fitting if device.usb}
    by = "serial number" if len(serials) == len(fitting) else "path below /dev/serial/by-path, or by interface"
    raise PortError("failed", f"{port} fits {len(fitting)} ports: {_listed(fitting)}", f"name one by its {by}")


def serial_devices(*, sys: Path = SYS, dev: Path = DEV) -> list[SerialDevice]:
    """All serial ports that have hardware behind them, sorted by name, USB2 before USB10."""
    links = _links(dev)
    found = [
        SerialDevice(str(dev / entry.name), _driver(entry), usb_identity(entry), links.get(str(dev / entry.name), ()))
        for entry in (sys / "class/tty").glob("tty*")
        if (entry / "device").exists() and _text(entry / "type") != _NO_UART
    ]
    return sorted(found, key=lambda device: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", device.path)])


def usb_identity(entry: Path) -> UsbIdentity | None:
    """Of the USB device above ``/sys/class/tty/ttyX``: the first directory upwards that has an idVendor."""
    place = Path(os.path.realpath(entry / "device"))
    interface = ""
    for above in (place, *place.parents):
        interface = interface or _text(above / "bInterfaceNumber")
        if vid := _text(above / "idVendor"):
            product, manufacturer = _text(above / "product"), _text(above / "manufacturer")
            return UsbIdentity(
                vid, _text(above / "idProduct"), _text(above / "serial"), interface, product, manufacturer
            )
    return None


def _listed(devices: Sequence[SerialDevice]) -> str:
    shown = []
    for device in devices[:_SHOWN]:
        usb = device.usb
        interface = f", interface {usb.interface}" if usb and usb.interface not in ("", "00") else ""
        shown.append(f"{device.path} ({usb.name if usb else device.driver}{interface})")
    more = f" and {len(devices) - _SHOWN} more" if len(devices) > _SHOWN else ""
    return ", ".join(shown) + more


def _driver(entry: Path) -> str:
    name = os.path.basename(os.path.realpath(entry / "device/driver"))
    return name if name != "driver" else ""


def _links(dev: Path) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for link in _stable(dev):
        found.setdefault(os.path.realpath(link), []).append(str(link))
    # A tree of a test may itself stand behind a link.
    return {path: tuple(links) for real, links in found.items() for path in {real, str(dev / os.path.basename(real))}}


def _stable(dev: Path) -> Iterator[Path]:
    for folder in ("by-id", "by-path"):
        yield from sorted((dev / "serial" / folder).glob("*"))
    yield from sorted(dev.glob("serial[0-9]*"))  # a Raspberry Pi's names of its own UARTs


def _text(path: Path) -> str:
    """Bytes that are no UTF-8, as cheap adapters have in their texts, are shown as such."""
    try:
        return path.read_bytes().decode(errors="replace").strip("\0 \t\r\n")
    except OSError:
        return ""
