"""A status report and a difference of configurations as lines for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agent.certificate import AHEAD_DAYS


def duration(seconds: float) -> str:
    """``3 d 4 h``, ``5 min 12 s``, ``0.4 s``: the two largest units."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    left = int(seconds)
    parts: list[str] = []
    for name, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count} {name}")
    return " ".join(part for part in parts[:2] if not part.startswith("0 "))


def size(octets: float) -> str:
    """``1.2 MB``."""
    for unit in ("B", "kB", "MB"):
        if octets < 1000:
            return f"{octets:.0f} {unit}" if unit == "B" else f"{octets:.1f} {unit}"
        octets /= 1000
    return f"{octets:.1f} GB"


def glance(report: dict[str, Any]) -> tuple[list[str], bool]:
    """Lines, what is not well first in its own line with "!", and whether all is well."""
    lines = list(_lines(report))
    return [text for text, _ in lines], all(well for _, well in lines)


def _lines(report: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    link, readings, outbox, clock = (report[key] for key in ("link", "readings", "outbox", "clock"))
    versions = report["versions"]
    yield f"  {report['agent']}: up for {duration(report['uptime_s'])}, outstation {versions['agent']}", True
    up = link["state"] == "up"
    why = link["last_error"]
    state = f"up for {duration(link['for_s'])}" if up else f"{link['state']}, away for {duration(link['away_s'])}"
    yield (
        _mark(up) + f"broker    {state}, {link['url']}, "
        f"{link['reconnects']} reconnects" + (f"; {why['text']}" if why and not up else ""),
        up,
    )
    dropped = readings["dropped"] + readings["rejected"]
    yield (
        _mark(not dropped) + f"readings  {readings['added']} read, {readings['written']} delivered, "
        f"{outbox['waiting']} waiting, {readings['dropped']} dropped, {readings['rejected']} rejected",
        not dropped,
    )
    if certificate := report.get("certificate"):
        left = certificate["days_left"]
        good = left is not None and left > AHEAD_DAYS
        yield (
            _mark(good)
            + f"certificate  {certificate['problem'] or f'valid for {left} d, until ' + certificate['expires'][:10]}",
            good,
        )
    disk = outbox["disk"]
    sound = disk["state"] == "open" and not outbox["blocked"]
    yield (
        _mark(sound)
        + f"outbox    {disk['state']}, {size(outbox['bytes'])}"
        + (", full: the devices rest" if outbox["blocked"] else "")
        + (f"; {disk['reason']}" if disk["reason"] else ""),
        sound,
    )
    yield (
        _mark(clock["trusted"])
        + f"clock     {'right' if clock['trusted'] else 'not to be trusted'} ({clock['basis']})",
        clock["trusted"],
    )
    slow = report["loop"]["slow_count"]
    process = report["process"]
    yield (
        f"  process   {size(process['rss_bytes'])} of memory, {process['cpu_s']:.1f} s of CPU, {slow} slow callbacks",
        True,
    )
    width = max((len(name) for name in report["devices"]), default=0)
    away_first = sorted(report["devices"].items(), key=lambda item: (item[1]["state"] == "online", item[0]))
    for name, device in away_first:
        well = device["state"] == "online"
        last = device["last_reading_s"]
        faults = sum(fault["count"] for fault in device["faults"].values())
        text = f"{name:<{width}}  {device['state']:<11} {device['readings']} readings, {faults} faults"
        if last is not None:
            text += f", last {duration(last)} ago"
        yield _mark(well) + text + (f"; {device['reason']}" if device["reason"] else ""), well


def _mark(well: bool) -> str:
    return "  " if well else "! "


def changes(difference: dict[str, Any]) -> list[str]:
    """What a reload has done."""
    words = (("added", "started"), ("removed", "stopped"), ("changed", "restarted"))
    lines = [f"{word}: {', '.join(difference[key])}" for key, word in words if difference[key]]
    if difference["restart"]:
        lines.append(f"waits for a restart of the agent: {', '.join(difference['restart'])}")
    return lines or ["nothing has changed"]


_SIGNS = {"come": "+", "go": "-", "change": "~", "stay": " "}


def planned(plan: dict[str, Any]) -> Iterator[str]:
    """What would change (``agent.plan.compare``): each device with its settings, topics and entities, and a sum."""
    counts = dict.fromkeys(_SIGNS, 0)
    agent = plan["agent"]
    if agent["action"] != "stay":
        yield "! agent" if agent["action"] == "change" else f"{_SIGNS[agent['action']]} agent"
        yield from _planned(agent, "!")
    for name, part in plan["devices"].items():
        counts[part["action"]] += 1
        lines = list(_planned(part, "~"))
        if part["action"] != "stay" or lines:
            yield f"{_SIGNS[part['action']]} device {name} ({part['driver']})"
            yield from lines
    total = "devices: " + ", ".join(f"{count} to {action}" for action, count in counts.items())
    if waits := len(agent["keys"]):
        total += f"; {waits} key{'s' * (waits > 1)} outside of devices would wait for a restart of the agent"
    yield total


def _planned(part: dict[str, Any], sign: str) -> Iterator[str]:
    """sign: of settings, which say when they take effect."""
    for key, (before, after) in part["keys"].items():
        yield f"    {sign} {key} = {before} -> {after}" if before != after else f"    {sign} {key} is another"
    for way in ("go", "come"):
        for topic in part["topics"][way]:
            yield f"    {_SIGNS[way]} topic {topic}"
    for way in ("go", "come"):
        for name, about in part["entities"][way].items():
            yield f"    {_SIGNS[way]} entity {name}" + (f" ({about})" if about else "")
    for name, (before, after) in part["entities"]["change"].items():
        yield f"    ~ entity {name} ({before} -> {after})"
