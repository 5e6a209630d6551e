"""Which drivers there are: our own, and whatever installed distributions offer in the group ``outstation.drivers``.

A driver is imported only when somebody asks for it by name: the agent pays for those that its configuration names. One
that cannot be imported is an entry with an error; it is nobody else's problem. Nor is a damaged ``entry_points.txt``.
We read these files ourselves (the PyPA's specification fixes their format), for one bad line in any of them makes
``importlib.metadata.entry_points`` raise, and no driver would be found. It takes 1.5 ms, theirs 2 ms.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from agent.driver import Channel, Context, DeviceConfig, Driver, Output
from agent.errors import PluginError

GROUP = "outstation.drivers"
"""The entry point group in which a distribution offers drivers."""

DISTRIBUTION = "outstation"
BUILTIN = {
    "d0": "drivers.d0:D0",
    "exec": "drivers.exec:Exec",
    "frames": "drivers.frames:Frames",
    "gpio": "drivers.gpio:Gpio",
    "host": "drivers.host:Host",
    "hwmon": "drivers.hwmon:Hwmon",
    "iio": "drivers.iio:Iio",
    "lines": "drivers.lines:Lines",
    "mhz19": "drivers.mhz19:Mhz19",
    "modbus": "drivers.modbus:Modbus",
    "nmea": "drivers.nmea:Nmea",
    "onewire": "drivers.onewire:OneWire",
    "p1": "drivers.p1:P1",
    "pms5003": "drivers.pms5003:Pms5003",
    "sds011": "drivers.sds011:Sds011",
    "sml": "drivers.sml:Sml",
    "socket": "drivers.socket:Socket",
    "tail": "drivers.tail:Tail",
}
"""Our own, as in pyproject.toml (a test compares): found without metadata, so also in a source tree, not installed."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A name that a distribution offers, not yet imported. target: "module:Class"; distribution: "name version"."""

    name: str
    target: str
    distribution: str


@dataclass(frozen=True, slots=True)
class DriverEntry:
    """A driver that was imported, or the one line that says why it could not be: ``cls`` or ``error`` is None."""

    name: str
    target: str
    distribution: str
    cls: type[Driver] | None
    error: str | None = None

    @property
    def summary(self) -> str:
        """First line of the driver's docstring."""
        return ((self.cls.__doc__ or "").strip().splitlines() or [""])[0] if self.cls else ""

    @property
    def docstring(self) -> str:
        """The docstring of the driver's module: the device, its wire format, the source and a sample."""
        return (sys.modules[self.cls.__module__].__doc__ or "").strip() if self.cls else ""

    @property
    def sample(self) -> str:
        """The sample TOML of the docstring: its indented blocks that begin with a table header; "" if there is none."""
        return "\n\n".join(_toml_blocks(self.docstring))


class Registry:
    """Drivers by name. ``load`` imports one, ``entries`` all of them; the result of an import is kept."""

    def __init__(self, offers: Iterable[Offer]) -> None:
        self._offers: dict[str, list[Offer]] = {}
        self._entries: dict[str, DriverEntry] = {}
        for offer in offers:
            self.add(offer)

    def add(self, offer: Offer) -> None:
        """One more name. A second offer of the same name makes it a broken one."""
        self._offers.setdefault(offer.name, []).append(offer)

    @classmethod
    def of(cls, drivers: Mapping[str, type[Driver]]) -> Registry:
        """A registry of exactly these classes: for tests, and for programs that embed the agent."""
        registry = cls(Offer(name, f"{d.__module__}:{d.__qualname__}", DISTRIBUTION) for name, d in drivers.items())
        for name, driver in drivers.items():
            offer = registry._offers[name][0]
            registry._entries[name] = DriverEntry(name, offer.target, offer.distribution, driver)
        return registry

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that is offered, sorted; nothing is imported."""
        return tuple(sorted(self._offers))

    def load(self, name: str) -> DriverEntry:
        """The driver of that name, imported now if it was not yet. Raises KeyError if nobody offers it."""
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = _load(self._offers[name])
        return entry

    def entries(self) -> list[DriverEntry]:
        """All drivers, imported, sorted by name; broken ones too."""
        return [self.load(name) for name in self.names]


def discover(path: Sequence[str] | None = None) -> Registry:
    """The drivers of this installation. Reads a few small files, imports none of them. path: default ``sys.path``."""
    builtin = [Offer(name, target, DISTRIBUTION) for name, target in BUILTIN.items()]
    # Our own distribution's metadata may be older than this source tree; what counts is the table above.
    return Registry(builtin + [offer for offer in scan(path) if _normal(offer.distribution) != DISTRIBUTION])


def shared_resource(driver: type[Driver], config: DeviceConfig) -> str | None:
    """``Driver.shares`` with paths made comparable: two links to one port are one port. Raises PluginError."""
    try:
        key = driver.shares(config)
    except Exception as error:  # a plugin's code; its defect is reported with its name
        raise PluginError(
            f"shares() of {driver.__module__}.{driver.__qualname__} failed: {_one_line(error)}"
        ) from error
    return os.path.realpath(key) if key is not None and key.startswith("/") else key


def known_channels(driver: type[Driver], config: DeviceConfig) -> Sequence[Channel]:
    """The channels of a device, as far as they are known before its first reading. Raises PluginError."""
    return _known(driver, config, "channels")


def known_outputs(driver: type[Driver], config: DeviceConfig) -> Sequence[Output]:
    """The outputs of a device, as far as they are known before it is opened. Raises PluginError."""
    return _known(driver, config, "outputs")


def _known(driver: type[Driver], config: DeviceConfig, what: str) -> tuple[Any, ...]:
    try:
        return tuple(getattr(driver(config, cast(Context, None)), what))  # constructors only assign
    except Exception as error:  # a plugin's code; its defect is reported with its name
        raise PluginError(f"{driver.__module__}.{driver.__qualname__} failed: {_one_line(error)}") from error


def lacking(driver: type[Driver], config: DeviceConfig) -> str | None:
    """What has to be installed before this device can be opened, or None; a defect in the driver is said here too."""
    try:
        return driver.lacks(config)
    except Exception as error:  # noqa: BLE001  (a plugin's code; the check goes on)
        return f"lacks() of {driver.__module__}.{driver.__qualname__} failed: {_one_line(error)}"


def scan(path: Sequence[str] | None = None) -> Iterator[Offer]:
    """What the installed distributions offer, in the order of the path; of two with one name the first counts.

    Distributions in zip files are not seen: the compiled modules of pydantic and orjson could not be imported from one.
    """
    seen: set[str] = set()
    for directory in sys.path if path is None else path:
        try:
            found = sorted(entry.path for entry in os.scandir(directory or ".") if entry.name.endswith(_METADATA))
        except OSError:  # a zip file, or an entry of sys.path that is not there
            continue
        for metadata in found:
            distribution = _distribution(metadata)
            if _normal(distribution) in seen:
                continue
            seen.add(_normal(distribution))
            try:
                with open(os.path.join(metadata, "entry_points.txt"), encoding="utf-8", errors="replace") as file:
                    text = file.read()
            except OSError:  # most distributions have no entry points
                continue
            if GROUP in text:
                yield from (Offer(name, target, distribution) for name, target in _entry_points(text))


_METADATA = (".dist-info", ".egg-info")


def _distribution(metadata: str) -> str:
    """Name and version from a directory's name: foo_bar-1.2.dist-info, foo-1.2-py3.11.egg-info, foo.egg-info."""
    parts = os.path.splitext(os.path.basename(metadata))[0].split("-")
    return " ".join((parts[0].replace("_", "-"), *parts[1:2]))


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution.split(" ")[0]).lower()  # PyPA name normalization


def _entry_points(text: str) -> Iterator[tuple[str, str]]:
    inside = False
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            inside = line[1:].partition("]")[0].strip() == GROUP
        elif inside and line and line[0] not in "#;":
            name, _, target = line.partition("=")
            yield (
                name.strip(),
                target.partition("[")[0].replace(" ", ""),
            )  # "[extra]" is deprecated, and says nothing to us


def _load(offers: list[Offer]) -> DriverEntry:
    offer = offers[0]
    if len(offers) > 1:
        who = " and ".join(f"{o.distribution} ({o.target})" for o in offers)
        return DriverEntry(
            offer.name, offer.target, offer.distribution, None, f"offered by {who}; uninstall all but one"
        )
    try:
        cls = _import(offer)
    except (Exception, SystemExit) as error:  # noqa: BLE001  (a plugin may fail in any way, `sys.exit` at import included)
        return DriverEntry(offer.name, offer.target, offer.distribution, None, _one_line(error))
    return DriverEntry(offer.name, offer.target, offer.distribution, cls)


def _import(offer: Offer) -> type[Driver]:
    module, _, attribute = offer.target.partition(":")
    found: Any = importlib.import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    if not (isinstance(found, type) and issubclass(found, Driver)):
        raise PluginError(f"{offer.target} is not a subclass of agent.driver.Driver")
    if found.__abstractmethods__:
        raise PluginError(f"{offer.target} lacks {', '.join(sorted(found.__abstractmethods__))}")
    if not (isinstance(found.Config, type) and issubclass(found.Config, DeviceConfig)):
        raise PluginError(f"{offer.target}: its Config is not a subclass of agent.driver.DeviceConfig")
    if found.Config.model_config.get("extra") != "forbid":
        raise PluginError(f'{offer.target}: its Config must keep extra="forbid", or misspelt keys pass in silence')
    return found


def _one_line(error: BaseException) -> str:
    text = (str(error).strip().splitlines() or [""])[0]
    name = type(error).__name__
    return text if isinstance(error, PluginError) else f"{name}: {text[:300]}" if text else name


def _toml_blocks(docstring: str) -> Iterator[str]:
    """Indented blocks of a docstring that begin with a table header, dedented."""
    block: list[str] = []
    lines = [line.expandtabs() for line in docstring.splitlines()]
    for line in [*lines, "end"]:
        if line.startswith(" ") or (block and not line.strip()):
            block.append(line)
            continue
        if block:
            indent = min(len(item) - len(item.lstrip()) for item in block if item.strip())
            text = "\n".join(item[indent:] for item in block).strip()
            if re.match(r"(#.*\n)*\[", text):
                yield text
        block = []
