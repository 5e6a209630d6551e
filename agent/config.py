"""The configuration: TOML files to one frozen object, or everything that is wrong with them at once.

Sections are validated by models that stand beside their users (``[mqtt]`` in ``agent.mqtt`` and so on), ``[[device]]``
tables by the Config of their driver. Values keep the type that TOML gives them: ``"9600"`` is no number, 1 not true.
"""

from __future__ import annotations

import os
import re
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError, to_json

from agent.clock import ClockSettings
from agent.codec import Topics
from agent.codec_formats import DISCOVERABLE, lacks
from agent.config_files import Merged, Place, key_text, quoted, read
from agent.config_lines import KeyPath
from agent.config_log import LogSettings
from agent.config_words import explained, nearest, shown, suggestion
from agent.driver import DeviceConfig, Driver
from agent.errors import ConfigError, PluginError, Problem
from agent.fleet_settings import FleetSettings
from agent.homeassistant_settings import HomeAssistantSettings
from agent.mqtt_settings import MqttSettings
from agent.outbox_settings import OutboxSettings
from agent.page_settings import PageSettings
from agent.page_settings import lacks as page_lacks
from agent.quantity import Duration, Interval
from agent.registry import Registry, shared_resource
from agent.requests_settings import RequestSettings

RESERVED = ("availability", "status", "info", "request", "response")
"""Names that no device may have: they are topics of the agent itself."""


def default_id(host: str | None = None) -> str:
    """The host's name up to the first dot, characters outside ``[A-Za-z0-9_-]`` as "-"; "outstation" if it is empty."""
    name = socket.gethostname() if host is None else host
    return re.sub(r"[^A-Za-z0-9_-]", "-", name.split(".")[0])[:64] or "outstation"


class AgentSettings(BaseModel):
    """Who this agent is, and how it ends."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(
        default_factory=default_id,
        pattern=r"^[A-Za-z0-9_-]+$",
        max_length=64,
        description="Name of this agent; part of every topic, so unique at the broker. "
        'Default: the host\'s name up to the first dot, other characters as "-".',
    )
    stop_timeout: Duration = Field(
        10.0,
        description="How long a clean stop may take: readings that the broker has not acknowledged by then stay in the "
        "outbox.",
    )


class LoopSettings(BaseModel):
    """The event loop: what counts as slow, what happens then, and the worker threads."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slow_after: Interval = Field(
        0.05, description="A callback that holds the loop longer is logged with file and line."
    )
    hang_after: Interval = Field(
        10.0,
        description='A callback that holds the loop longer counts as hung; with on_slow = "stop" the process ends.',
    )
    on_slow: Literal["warn", "stop"] = Field(
        "warn", description="warn: log and count it. stop: end with status 70, so that systemd starts the agent anew."
    )
    workers: tuple[Annotated[int, Field(ge=1, le=64)], Annotated[int, Field(ge=1, le=64)]] = Field(
        (1, 4), description="Fewest and most worker threads; the pool grows and shrinks between them."
    )

    @model_validator(mode="after")
    def _consistent(self) -> LoopSettings:
        if self.workers[0] > self.workers[1]:
            raise PydanticCustomError("loop", "workers is [fewest, most]; the first is the larger here")
        if self.hang_after < self.slow_after:
            raise PydanticCustomError("loop", "hang_after is less than slow_after")
        return self


class WorkersSettings(BaseModel):
    """What runs the parsers that are too slow for the loop."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["thread", "process"] = Field(
        "thread",
        description="thread: they take turns with everything else, as the interpreter has one lock. process: as many "
        "processes as there are cores, loop.workers at most, each some 35 MB; one that crashes is replaced. "
        "On a free-threaded interpreter threads need no processes, and none are made.",
    )


class StatusSettings(BaseModel):
    """The status report."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    interval: Interval = Field(30.0, ge=0.1, description="Seconds between two status reports.")


class Device(NamedTuple):
    """One ``[[device]]``, ready to be made: ``driver(config, context)``."""

    driver: type[Driver]
    config: DeviceConfig


@dataclass(frozen=True, slots=True)
class Config:
    """All that the files say, checked. ``overridden``: (key, the place that lost, the place that counts).

    set_aside: why the layers of the fleet were left out.
    """

    files: tuple[str, ...]
    agent: AgentSettings
    mqtt: MqttSettings
    outbox: OutboxSettings
    clock: ClockSettings
    loop: LoopSettings
    workers: WorkersSettings
    status: StatusSettings
    homeassistant: HomeAssistantSettings
    requests: RequestSettings
    fleet: FleetSettings
    page: PageSettings
    log: LogSettings
    devices: tuple[Device, ...]
    overridden: tuple[tuple[str, Place, Place], ...] = ()
    set_aside: tuple[Problem, ...] = ()

    def with_devices(self, devices: tuple[Device, ...]) -> Config:
        """The same with other devices."""
        return replace(self, devices=devices)


SECTIONS: dict[str, type[BaseModel]] = {
    "agent": AgentSettings,
    "mqtt": MqttSettings,
    "outbox": OutboxSettings,
    "clock": ClockSettings,
    "loop": LoopSettings,
    "workers": WorkersSettings,
    "status": StatusSettings,
    "homeassistant": HomeAssistantSettings,
    "requests": RequestSettings,
    "fleet": FleetSettings,
    "page": PageSettings,
    "log": LogSettings,
}


def load(path: str | os.PathLike[str], registry: Registry, *, set_aside: bool = False) -> Config:
    """Read a file, its drop-ins and the layers of the fleet. Imports the drivers that they name.

    Raises ConfigError with all that is wrong; set_aside: not where the files alone are good, for then the layers are
    left out: a board that an update of its files or of the agent has made them wrong for must stay within reach.
    Files that cannot be read, or are not TOML, are reported before anything that stands in the others is judged: what
    seems to be missing may stand in them.
    """
    merged, problems = read(os.fspath(path))
    if problems:
        raise ConfigError(problems)
    layers = 0
    if "fleet" in merged.data:
        from agent.fleet_layers import add_layers  # nothing that the others need

        layers = add_layers(merged, default_id())
    try:
        return _checked(merged, registry)
    except ConfigError as error:
        if not layers or not set_aside:
            raise
        return replace(_checked(read(os.fspath(path))[0], registry), set_aside=error.problems)


def _checked(merged: Merged, registry: Registry) -> Config:
    check = _Check(merged, registry)
    sections = {name: check.section(name, model) for name, model in SECTIONS.items()}
    check.format(sections["mqtt"], sections["homeassistant"])
    check.fleet(sections["fleet"], sections["agent"])
    check.topic(sections["agent"], sections["mqtt"], sections["homeassistant"])
    check.page(sections["page"])
    devices = check.devices()
    check.unknown_sections()
    if check.problems:
        order = {file: number for number, file in enumerate(merged.files)}
        raise ConfigError(sorted(check.problems, key=lambda p: (order.get(p.file, 0), p.line or 0)))
    # Every section is there: one that did not validate has left a problem.
    return Config(tuple(merged.files), devices=devices, overridden=tuple(merged.overridden), **sections)


class _Check:
    """One pass over the merged document; collects problems."""

    def __init__(self, merged: Merged, registry: Registry) -> None:
        self.merged = merged
        self.registry = registry
        self.problems = merged.problems
        tables = merged.data.get("device")
        self.tables: list[Any] = tables if isinstance(tables, list) else []
        names = [table.get("name") if isinstance(table, dict) else None for table in self.tables]
        count = Counter(name for name in names if isinstance(name, str))
        self.first = {name: index for index, name in reversed([*enumerate(names)]) if isinstance(name, str)}
        # A device is called by its name in messages; by its number, from 0, where the name is none or not its own.
        self.labels = [
            name if isinstance(name, str) and count[name] == 1 and re.fullmatch(r"[A-Za-z0-9_-]+", name) else str(index)
            for index, name in enumerate(names)
        ]

    def problem(self, path: KeyPath, message: str, remedy: str = "", *, value: bool = True) -> None:
        here: Any = self.merged.data
        for part in path:
            # None: what a default says, as agent.id by the host's name, where no file has the section.
            here = here.get(part) if isinstance(here, dict) else here and here[part]
        text = shown(here, path) if value and here is not None else None
        self.problems.append(Problem(*self.merged.place(path), self.key(path), text, message, remedy))

    def key(self, path: KeyPath) -> str:
        if path[0] == "device" and len(path) > 1 and isinstance(path[1], int):
            return f"device[{self.labels[path[1]]}]" + (f".{key_text(path[2:])}" if path[2:] else "")
        return key_text(path)

    def section(self, name: str, model: type[BaseModel]) -> Any:
        table = self.merged.data.get(name, {})
        if not isinstance(table, dict):
            form = f"write [{name}] once, with single brackets" if isinstance(table, list) else f"write [{name}]"
            self.problem((name,), "a table is due", form)
            return None
        return self.validated((name,), table, model)

    def validated(self, path: KeyPath, table: dict[str, Any], model: type[BaseModel]) -> Any:
        """The table as model, or None after noting why not."""
        try:
            # As JSON and strict: no value is bent into another type, yet lists become tuples and text becomes paths.
            return model.model_validate_json(to_json(table, inf_nan_mode="constants"), strict=True)
        except ValidationError as error:
            for inner, message, remedy in explained(error, table, model):
                unknown = message == "unknown key"  # its value is never shown: it may be a misspelt password
                if unknown and len(inner) == 1 and (home := self.home(inner[0], path)):
                    remedy = f"it belongs to {home}"
                self.problem((*path, *inner), message, remedy, value=not unknown)
            return None

    def format(self, mqtt: MqttSettings | None, homeassistant: HomeAssistantSettings | None) -> None:
        """Note a problem if a form cannot be written here, or not be read by who is to read it."""
        if mqtt is None:
            return
        if missing := lacks(mqtt.format):
            self.problem(("mqtt", "format"), missing, f"pip install 'outstation[{mqtt.format}]'")
        if homeassistant is not None and homeassistant.discovery == "on" and mqtt.format not in DISCOVERABLE:
            self.problem(
                ("homeassistant", "discovery"),
                f"Home Assistant cannot read mqtt.format = {quoted(mqtt.format)}",
                f"it reads {' and '.join(map(quoted, DISCOVERABLE))}",
            )

    def fleet(self, fleet: FleetSettings | None, agent: AgentSettings | None) -> None:
        """Note a problem if documents could not be checked here, or would stand below this very agent."""
        # With [fleet] or without: all boards of this broker look there, and this agent's rights would reach them.
        if agent is not None and agent.id == "fleet":
            remedy = 'write any other name, as id = "fleet-1" in [agent]; without one it is the host\'s'
            self.problem(("agent", "id"), "reserved: the fleet's documents stand below that topic", remedy)
        if fleet is not None and fleet.enabled and find_spec("cryptography") is None:
            self.problem(("fleet", "enabled"), "cryptography is not installed", "pip install 'outstation[fleet]'")

    def topic(
        self, agent: AgentSettings | None, mqtt: MqttSettings | None, homeassistant: HomeAssistantSettings | None
    ) -> None:
        """Note a problem if readings could go to a topic that means something else."""
        if agent is None or mqtt is None or mqtt.topic is None:
            return
        others = [f"{mqtt.base}/fleet/+/+"]
        if homeassistant is not None and homeassistant.discovery == "on":
            others += [f"{homeassistant.prefix}/status", f"{homeassistant.prefix}/device/+/config"]
        if clash := Topics(agent.id, mqtt.base, mqtt.topic).clash(others, never=RESERVED):
            remedy = 'begin it with a level of its own, as "site/{agent}/{device}"'
            self.problem(("mqtt", "topic"), f"a reading could go to {clash}, which means something else", remedy)

    def page(self, page: PageSettings | None) -> None:
        """Note a problem if there is to be a status page, and what it is made of is not here."""
        if page is not None and page.listen is not None and (missing := page_lacks()):
            self.problem(("page", "listen"), missing, "pip install 'outstation[page]'")

    def home(self, key: str | int, path: KeyPath) -> str | None:
        """The section that knows this key, if it is another one."""
        found = [f"[{name}]" for name, model in SECTIONS.items() if key in model.model_fields and (name,) != path]
        return " or ".join(found) or None

    def unknown_sections(self) -> None:
        for key, value in self.merged.data.items():
            if key not in SECTIONS and key != "device":
                home = None if isinstance(value, dict | list) else self.home(key, ())
                table = isinstance(value, dict | list)
                remedy = f"it belongs to {home}" if home else suggestion(key, [*SECTIONS, "device"])
                self.problem((key,), "unknown section" if table else "unknown key", remedy, value=False)

    def devices(self) -> tuple[Device, ...]:
        tables = self.merged.data.get("device", [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            self.problem(
                ("device",), "a list of tables is due", "begin each device with [[device]], in double brackets"
            )
            return ()
        devices: list[Device] = []
        taken: dict[str, KeyPath] = {}
        for index, table in enumerate(tables):
            path: KeyPath = ("device", index)
            self.name(path, table.get("name"))
            driver = self.driver(path, table)
            if driver is None:
                common = {key: table[key] for key in ("name", "driver") if key in table}
                self.validated(path, common, DeviceConfig)
                continue
            config = self.validated(path, table, driver.Config)
            if config is not None:
                self.resource(path, driver, config, taken)
                devices.append(Device(driver, config))
        return tuple(devices)

    def name(self, path: KeyPath, name: Any) -> None:
        if name in RESERVED:
            others = ", ".join(RESERVED)
            self.problem((*path, "name"), "reserved: it is a topic of the agent itself", f"any name but {others}")
        if isinstance(name, str) and (index := self.first[name]) != path[1]:
            place = self.merged.place(("device", index, "name"))
            self.problem((*path, "name"), f"a device of that name is at {place.file}:{place.line}", "rename one")

    def driver(self, path: KeyPath, table: dict[str, Any]) -> type[Driver] | None:
        """The class that the device names, or None; a problem is noted unless ``DeviceConfig`` will find it."""
        name = table.get("driver")
        if not isinstance(name, str):
            return None
        path = (*path, "driver")
        if name not in self.registry.names:
            near = nearest(name, self.registry.names)
            known = ", ".join(self.registry.names)
            self.problem(path, "no such driver", f"did you mean {quoted(near)}?" if near else f"installed: {known}")
            return None
        entry = self.registry.load(name)
        if entry.cls is None:
            remedy = f"repair or remove the driver ({entry.target} of {entry.distribution}), or this device"
            self.problem(path, f"the driver cannot be loaded: {entry.error}", remedy)
        return entry.cls

    def resource(self, path: KeyPath, driver: type[Driver], config: DeviceConfig, taken: dict[str, KeyPath]) -> None:
        """Note a problem if another device has this one's port."""
        here = (*path, "port") if "port" in self.tables[int(path[1])] else path
        try:
            key = shared_resource(driver, config)
        except PluginError as error:
            self.problem(path, str(error), "a defect in the driver: tell its author", value=False)
            return
        if key is not None and (first := taken.setdefault(key, here)) != here:
            place = self.merged.place(first)
            also = "" if shown(key, ()) == shown(getattr(config, "port", None), ()) else f" (both are {key})"
            self.problem(
                here,
                f"{self.key(first)} at {place.file}:{place.line} is on the same port{also}",
                "one port, one device",
            )


def problems_text(error: ConfigError) -> Iterator[str]:
    """The problems, set for a person: a line with place and value, below it what is wrong and what would be right."""
    for problem in error.problems:
        where = f"{problem.file}:{problem.line}" if problem.line else problem.file
        what = f"{problem.key} = {problem.value}" if problem.value is not None else problem.key
        yield f"{where}: {what}" if what else where
        yield f"    {problem.message}" + (f"; {problem.remedy}" if problem.remedy else "")
