"""Tells Home Assistant what there is, when it changes, and when Home Assistant comes back.

What is known of the channels' kinds, and which devices were announced, stands in the agent's own retained ``info``: the
broker gives it back at each connection, before our new one reaches it. So what has gone from the configuration since
is taken back without a file of our own.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import orjson

from agent.codec import Topics
from agent.driver import DeviceConfig, Output
from agent.homeassistant import MOST, Discovery, Kind, kind_of
from agent.logline import line
from agent.model import Channel, Reading

_KINDS = ("number", "bool", "text")


class AnnouncedDevice(Protocol):
    """What is asked of a device: ``device.Device``."""

    config: DeviceConfig

    @property
    def channels(self) -> Sequence[Channel]: ...

    @property
    def outputs(self) -> Sequence[Output]: ...


class Announcer:
    """All of it runs on the loop's thread.

    enabled: announce; else what was announced is taken back. prefix: Home Assistant's discovery prefix; bare: as
    ``Discovery`` has it.
    retain: publishes a state, again with ``again`` though it is the same; subscribe: of the link; changed: ``info``
    is to be published anew.
    """

    def __init__(
        self,
        agent: str,
        topics: Topics,
        devices: Mapping[str, AnnouncedDevice],
        *,
        enabled: bool,
        prefix: str,
        bare: bool = False,
        retain: Callable[..., object],
        subscribe: Callable[[str], object],
        changed: Callable[[], object],
        log: logging.Logger | None = None,
    ) -> None:
        self._enabled = enabled
        self._discovery = Discovery(agent, topics, prefix, bare=bare)
        self._birth = f"{prefix}/status"
        self._info = topics.info
        self._devices = devices
        self._retain = retain
        self._subscribe = subscribe
        self._changed = changed
        self._log = log or logging.getLogger("outstation.homeassistant")
        self._kinds: defaultdict[str, dict[str, Kind]] = defaultdict(dict)
        self._gone: defaultdict[str, dict[str, Kind]] = defaultdict(dict)
        self._full: set[str] = set()

    def start(self) -> None:
        """Before the first connection."""
        self._subscribe(self._info)
        if self._enabled:
            self._subscribe(self._birth)
            self._retain(self._discovery.topic(None), self._discovery.agent())
            for name in self._devices:
                self._announce(name)

    def info(self) -> dict[str, dict[str, Kind]] | None:
        """What ``info`` carries under "homeassistant"."""
        return self._kinds if self._enabled else None

    def readings(self, readings: Sequence[Reading]) -> None:
        """Readings of one device are on their way. One look brings readings of one shape, so the first one tells."""
        if not self._enabled:
            return
        device = readings[0].device
        kinds = self._kinds[device]
        fresh: dict[str, Kind] = {}
        for name, value in orjson.loads(readings[0].body).items():
            if name not in kinds and (kind := kind_of(value)) is not None:
                fresh[name] = kind
        if fresh:
            self._learn(device, fresh)
            self._announce(device)
            self._changed()

    def message(self, topic: str, payload: bytes, retained: bool) -> None:
        """One message from the broker; others than these two topics' are passed over."""
        if topic == self._birth and self._enabled:
            if payload == b"online":
                self._log.info(line("homeassistant.online", devices=len(self._devices)))
                self._retain(self._discovery.topic(None), self._discovery.agent(), again=True)
                for name in self._devices:
                    self._announce(name, again=True)
        elif topic == self._info and retained:
            self._remember(payload)

    def refresh(self, device: str) -> None:
        """A device has come: a driver may know its channels and outputs only now."""
        if self._enabled:
            self._announce(device)

    def remove(self, device: str) -> None:
        """A device has left the configuration."""
        if self._enabled:
            self._kinds.pop(device, None)
            self._gone.pop(device, None)
            self._retain(self._discovery.topic(device), b"")

    def _announce(self, name: str, *, again: bool = False) -> None:
        device = self._devices[name]
        payload = self._discovery.device(
            name, device.config.driver, device.channels, device.outputs, self._kinds[name], self._gone[name]
        )
        if payload is not None:
            self._retain(self._discovery.topic(name), payload, again=again)

    def _learn(self, device: str, fresh: Mapping[str, Kind]) -> None:
        kinds = self._kinds[device]
        kinds.update(fresh)
        for name in fresh:
            self._gone[device].pop(name, None)
        if len(kinds) > MOST and device not in self._full:
            self._full.add(device)
            self._log.warning(line("homeassistant.full", device=device, channels=len(kinds), announced=MOST))

    def _remember(self, payload: bytes) -> None:
        """What an earlier run, or this one, has left at the broker."""
        before = _announced(payload)
        if before is None:
            return
        kinds, declared = before
        changed = False
        for name, old in kinds.items():
            if not self._enabled or name not in self._devices:
                self._log.info(line("homeassistant.removed", device=name))
                self._retain(self._discovery.topic(name), b"")
                changed = True
                continue
            present = {channel.name for channel in self._devices[name].channels}
            lost = {c: k for c, k in old.items() if c in declared.get(name, ()) and c not in present}
            fresh = {c: k for c, k in old.items() if c not in lost and c not in self._kinds[name]}
            lost = {c: k for c, k in lost.items() if c not in self._kinds[name]}
            if fresh or lost:
                self._gone[name] |= lost
                self._learn(name, fresh)
                self._announce(name)
                changed = True
        if not self._enabled and kinds:
            self._retain(self._discovery.topic(None), b"")
        if changed:
            self._changed()


def _announced(payload: bytes) -> tuple[dict[str, dict[str, Kind]], dict[str, set[str]]] | None:
    """Kinds by device and channel, and the channels that were declared; None where somebody else wrote it."""
    try:
        info: Any = orjson.loads(payload)
        kinds: dict[str, dict[str, Kind]] = {
            str(device): {str(channel): kind for channel, kind in table.items() if kind in _KINDS}
            for device, table in info["homeassistant"].items()
        }
        declared = {
            str(device): {str(channel["name"]) for channel in table["channels"]}
            for device, table in info["devices"].items()
        }
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return kinds, declared
