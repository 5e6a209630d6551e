"""The fleet's layers over the files of a board: groups in the order of ``fleet.groups``, then the board's own.

Tables merge as drop-ins do. A ``[[device]]`` whose name is there already changes that device, key by key; another name
adds one. Who the board is, whom it trusts and where it keeps its readings, no layer can change: a mistake there, or a
stolen key, would take the board away for good.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.config_files import Merged, Place, key_text, parse
from agent.errors import FleetError, Problem
from agent.fleet_state import read_state, state_path
from agent.outbox_settings import OutboxSettings

FIXED = {"agent.id", "mqtt.base", "mqtt.client_id", "outbox.path"}
"""Keys that the board's own files alone may say; and all of [fleet]."""


def add_layers(merged: Merged, agent: str) -> int:
    """Put what is in force over the files that are merged already; how many layers. Problems are noted in ``merged``.

    agent: the board's id, unless its files say another.
    """
    fleet = merged.data.get("fleet")
    if not isinstance(fleet, dict) or fleet.get("enabled") is not True:
        return 0
    path = state_path(OutboxSettings(path=_path(_get(merged.data, "outbox", "path"))).file())
    try:
        layers = read_state(path).in_force()
    except FleetError as error:
        merged.problems.append(Problem(str(path), None, "", None, error.args[0], error.remedy))
        return 1
    groups = fleet.get("groups")
    own = _get(merged.data, "agent", "id") or agent
    targets = [*(f"group/{group}" for group in (groups if isinstance(groups, list) else ())), f"agent/{own}"]
    found = [target for target in targets if target in layers]
    denied = fleet.get("deny_drivers", ["exec"])
    for target in found:
        layer = layers[target]
        add_layer(merged, f"fleet:{target}@{layer.version}", layer.config, denied if isinstance(denied, list) else [])
    return len(found)


def add_layer(merged: Merged, name: str, text: str, denied: list[Any]) -> None:
    """One layer more. name: what stands for its file in messages; denied: drivers that it may not use."""
    parsed = parse(name, text)
    if isinstance(parsed, Problem):
        merged.problems.append(parsed)
        return
    data, lines = parsed
    fixed = [
        key
        for section, table in data.items()
        for key in (
            [(section,)] if section == "fleet" or not isinstance(table, dict) else [(section, k) for k in table]
        )
        if section == "fleet" or ".".join(key) in FIXED
    ]
    said = ("a layer of the fleet cannot change it", "it stands in the board's own files alone")
    wrong: list[tuple[tuple[str | int, ...], str, str]] = [(key, *said) for key in fixed]
    merged.amend(name, data, lines)
    devices = merged.data.get("device")
    tables = data.get("device")
    drivers = {
        table["name"]: table.get("driver")
        for table in (devices if isinstance(devices, list) else ())
        if isinstance(table, dict) and isinstance(table.get("name"), str)
    }
    for index, table in enumerate(tables if isinstance(tables, list) else ()):
        if isinstance(table, dict):
            known = drivers.get(table["name"]) if isinstance(table.get("name"), str) else None
            if known in denied or table.get("driver") in denied:
                wrong.append((("device", index), "its driver stands in fleet.deny_drivers", "see docs/fleet.md"))
    for place, message, remedy in wrong:
        line = lines.get(place)
        merged.problems.append(Problem(*Place(name, line), key_text(place), None, message, remedy))


def _get(data: dict[str, Any], section: str, key: str) -> Any:
    table = data.get(section)
    return table.get(key) if isinstance(table, dict) else None


def _path(value: Any) -> Path | None:
    return Path(value) if isinstance(value, str) else None
