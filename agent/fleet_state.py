"""What a board keeps of its fleet's documents: one small file beside the outbox, written as a whole by ``agent.fleet``.

A configuration under trial names the process that tries it. Where that process is gone, by a crash, a power cut or a
kill, the trial is void for whoever reads the file next: nothing has to be written for a board to be back where it was.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from agent.errors import FleetError
from agent.fleet_document import Document, digest

FORMAT = 1
MOST = 64
"""Targets that are remembered: a board's own and its groups, and some that it has left."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A configuration in force, or under trial."""

    version: int
    issued: str
    config: str

    @property
    def digest(self) -> str:
        return digest(self.config)


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest document of a target that was tried: no older one is looked at. state: "trial", "applied" or
    "rolled_back"."""

    version: int
    digest: str
    state: str
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trial:
    """A layer that must prove itself. process: who tries it, by ``own_process``."""

    target: str
    layer: Layer
    process: str


@dataclass(frozen=True, slots=True)
class FleetState:
    """All of it, by targets as ``group/greenhouse``."""

    layers: dict[str, Layer] = field(default_factory=dict)
    seen: dict[str, Seen] = field(default_factory=dict)
    trial: Trial | None = None

    def tried(self, document: Document, process: str) -> FleetState:
        """A trial of this document begins."""
        target, layer = str(document.target), Layer(document.version, document.issued, document.config)
        seen = _with(self.seen, target, Seen(layer.version, layer.digest, "trial"))
        return FleetState(self.layers, seen, Trial(target, layer, process))

    def confirmed(self) -> FleetState:
        """The layer under trial is in force from now on."""
        assert self.trial is not None
        target, layer = self.trial.target, self.trial.layer
        seen = _with(self.seen, target, Seen(layer.version, layer.digest, "applied"))
        return FleetState(_with(self.layers, target, layer), seen)

    def rolled_back(self, reason: str) -> FleetState:
        """What was in force before the trial is so again; its version is not tried a second time."""
        assert self.trial is not None
        target, layer = self.trial.target, self.trial.layer
        seen = Seen(layer.version, layer.digest, "rolled_back", (reason,))
        return FleetState(self.layers, _with(self.seen, target, seen))

    def renewed(self, document: Document) -> FleetState:
        """A newer document says what is in force already."""
        target = str(document.target)
        return replace(
            self,
            layers=_with(self.layers, target, Layer(document.version, document.issued, document.config)),
            seen=_with(self.seen, target, Seen(document.version, document.digest, "applied")),
        )

    def in_force(self) -> dict[str, Layer]:
        """Layers by target; the one under trial among them while the process that tries it lives."""
        if self.trial is None or not alive(self.trial.process):
            return self.layers
        return {**self.layers, self.trial.target: self.trial.layer}

    def encode(self) -> bytes:
        trial = self.trial
        return orjson.dumps(
            {
                "format": FORMAT,
                "layers": {target: _layer_table(layer) for target, layer in self.layers.items()},
                "seen": {
                    target: {"version": s.version, "digest": s.digest, "state": s.state, "problems": s.problems}
                    for target, s in self.seen.items()
                },
                "trial": trial and {"target": trial.target, "process": trial.process, **_layer_table(trial.layer)},
            }
        )


def _with(table: dict[str, Any], target: str, value: Any) -> dict[str, Any]:
    """The table with one more, the newest at the end; past ``MOST`` the oldest is forgotten."""
    found = {key: old for key, old in table.items() if key != target}
    found[target] = value
    return dict(list(found.items())[-MOST:])


def _layer_table(layer: Layer) -> dict[str, Any]:
    return {"version": layer.version, "issued": layer.issued, "config": layer.config}


def state_path(outbox: Path) -> Path:
    """Where the agent with this outbox keeps it."""
    return outbox.with_name(f"{outbox.stem}.fleet.json")


def read_state(path: Path) -> FleetState:
    """What is kept; nothing where there is no file. Blocks. Raises FleetError: "damaged" or "unreadable"."""
    try:
        table = orjson.loads(path.read_bytes())
        if table["format"] != FORMAT:
            raise FleetError(
                "damaged", f"{path} is of format {table['format']}", "it is of a newer release: install that again"
            )
        trial = table["trial"]
        return FleetState(
            {target: _layer(item) for target, item in table["layers"].items()},
            {
                target: Seen(item["version"], item["digest"], item["state"], tuple(item["problems"]))
                for target, item in table["seen"].items()
            },
            trial and Trial(trial["target"], _layer(trial), trial["process"]),
        )
    except FileNotFoundError:
        return FleetState()
    except OSError as error:
        raise FleetError(
            "unreadable", f"{path} cannot be read ({error.strerror})", "check its owner and mode"
        ) from None
    except (ValueError, LookupError, TypeError, AttributeError):
        remedy = "remove it: the board then takes the documents that the broker has"
        raise FleetError("damaged", f"{path} is damaged", remedy) from None


def _layer(table: dict[str, Any]) -> Layer:
    version, issued, config = table["version"], table["issued"], table["config"]
    if type(version) is not int or not isinstance(issued, str) or not isinstance(config, str):
        raise TypeError
    return Layer(version, issued, config)


def own_process() -> str:
    """What names this process among all of this machine, over its boots: boot id, pid, start in clock ticks."""
    return _process(os.getpid()) or ""


def alive(process: str) -> bool:
    """Whether the process of that name lives."""
    parts = process.split(":")
    return len(parts) == 3 and parts[1].isdecimal() and _process(int(parts[1])) == process


def _process(pid: int) -> str | None:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
        with open(f"/proc/{pid}/stat", "rb") as stat:
            # Its second field, the name, may hold blanks and brackets; the start is field 22 (proc_pid_stat(5)).
            return f"{boot}:{pid}:{int(stat.read().rpartition(b')')[2].split()[19])}"
    except (OSError, ValueError, IndexError):
        return None
