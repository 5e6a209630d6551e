"""The charts and tables of docs/performance.md, from bench/results: `python -m bench.plots`.

Charts are SVG files in docs/performance/. Tables stand in the page between ``<!-- name -->`` and ``<!-- end -->`` and
are replaced; those whose benchmark has not been run stay as they are.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import common, guard
from bench.chart import Dot, dots, lines
from bench.peer import AGENT

PAGE = common.ROOT / "docs" / "performance.md"
CHARTS = common.ROOT / "docs" / "performance"

Result = dict[str, Any]


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """In Markdown; all but the first column to the right."""
    made = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in made)


def figure(value: object) -> str:
    """A number with three digits; what is no number, as it is."""
    if not isinstance(value, int | float):
        return str(value)
    if value >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.{1 if value >= 10 else 2}f}"


def _who(row: Result) -> str:
    return f"**{row['who']}**" if str(row["who"]).startswith(AGENT) else str(row["who"])


def _pick(result: Result, columns: Sequence[tuple[str, str]], first: str) -> str:
    """A table of these (title, key) of each row; what is only in some rows is left empty."""
    rows = [[_who(row), *(figure(row.get(key, "")) for _, key in columns)] for row in result["rows"]]
    return table([first, *(title for title, _ in columns)], rows)


def flood(result: Result) -> str:
    columns = [
        ("QoS", "qos"),
        ("delivered/s", "per_s"),
        ("least", "per_s_min"),
        ("most", "per_s_max"),
        ("lost, %", "lost_percent"),
        ("readings a message", "per_message"),
        ("CPU-s per 100,000", "cpu_s_per_100k"),
        ("peak RSS, MiB", "peak_rss_mib"),
        ("MB to disk", "disk_mb"),
    ]
    return _pick(result, columns, "who (batch, durability)")


def flood_charts(result: Result) -> dict[str, str]:
    rows = [row for row in result["rows"] if row["qos"] == 1 or not str(row["who"]).startswith(AGENT)]

    def chart(title: str, key: str) -> str:
        ordered = sorted(rows, key=lambda row: row[key], reverse=key == "per_s")
        found = [(row["who"], [Dot(row[key], 0 if row["who"].startswith(AGENT) else 1)]) for row in ordered]
        return dots(title, found, ["this agent (batch, durability), QoS 1", "others"])

    return {
        "flood-rate": chart("One line flooded: readings delivered a second (more is better)", "per_s"),
        "flood-cpu": chart("CPU seconds for 100,000 readings (less is better)", "cpu_s_per_100k"),
    }


LATENCY = {
    "agent": AGENT,
    "strict": f"{AGENT}, strict",
    "company": f"{AGENT}, in bad company",
    "SQLite commit": "(an SQLite commit alone)",
}


def latency(result: Result) -> str:
    columns = [("samples", "samples"), *((f"{q}, ms", f"{q}_ms") for q in ("p50", "p90", "p99", "max"))]
    return _pick(_named(result), columns, "who")


def latency_charts(result: Result) -> dict[str, str]:
    rows = [
        (row["who"], [Dot(row[f"p{q}_ms"], i) for i, q in enumerate((50, 90, 99))]) for row in _named(result)["rows"]
    ]
    return {"latency": dots("From the serial line to the subscriber, ms (less is better)", rows, ["p50", "p90", "p99"])}


def _named(result: Result) -> Result:
    return {**result, "rows": [{**row, "who": LATENCY.get(row["who"], row["who"])} for row in result["rows"]]}


def idle(result: Result) -> str:
    columns = [
        ("CPU-s a minute", "cpu_s_per_min"),
        ("RSS, MiB", "rss_mib"),
        ("wake-ups/s", "wakeups_per_s"),
        ("bytes to disk", "disk_bytes"),
    ]
    return _pick(_named(result), columns, "who")


def coldstart(result: Result) -> str:
    columns = [("median, s", "median_s"), ("least", "min_s"), ("most", "max_s")]
    return _pick(_named(result), columns, "who")


def reload(result: Result) -> str:
    head = ["written", "readings", "p50, ms", "p99, ms", "max, ms", "late", "lost"]
    keys = ("samples", "p50_ms", "p99_ms", "max_ms", "late", "lost")
    return table(head, [[row["written"], *(figure(row[key]) for key in keys)] for row in result["rows"]])


def page(result: Result) -> str:
    head = ["page", "who is there", "readings", "p50, ms", "p99, ms", "max, ms", "CPU, %", "RSS, MB"]
    keys = ("samples", "p50_ms", "p99_ms", "max_ms", "cpu_percent", "rss_mb")
    return table(head, [[row["page"], row["there"], *(figure(row[key]) for key in keys)] for row in result["rows"]])


def backlog(result: Result) -> str:
    head = ["durability, replay", "kept/s", "sent/s", "RSS grew by, MiB", "live readings late by, ms"]
    keys = ("built_per_s", "drained_per_s", "rss_growth_mib", "live_late_ms")
    rows = [
        [f"{r['durability']}, {r['replay']}", *(figure(r[key]) if key in r else "" for key in keys)]
        for r in result["rows"]
    ]
    return table(head, rows)


def scale(result: Result) -> str:
    head = ["", "CPU for each, µs", "RSS, MiB", "all read after, s", "CPU-s until then"]
    keys = ("cpu_us_each", "rss_mib", "ready_s", "cpu_s_start")
    rows = [
        [f"{r['count']:,} {r['what']}", *(figure(r[key]) if key in r else "" for key in keys)] for r in result["rows"]
    ]
    return table(head, rows)


def scale_charts(result: Result) -> dict[str, str]:
    def series(what: str, key: str) -> list[tuple[float, float]]:
        return [(row["count"], row[key]) for row in result["rows"] if row["what"] == what]

    cpu = [("a line read and sent", series("devices", "cpu_us_each")), ("a timer", series("timers", "cpu_us_each"))]
    memory = [("the agent", series("devices", "rss_mib"))]
    return {
        "scale-cpu": lines("CPU, µs for each (flat is linear)", cpu, x="devices, or timers, that share the work"),
        "scale-memory": lines("Resident memory, MiB", memory, x="devices"),
    }


def zero(result: Result) -> str:
    head = ["", "who", "delivered/s", "CPU-s per 100,000", "p50, ms", "p99, ms", "CPU-s a minute", "RSS, MiB", "s"]
    keys = ("per_s", "cpu_s_per_100k", "p50_ms", "p99_ms", "cpu_s_per_min", "rss_mib", "median_s")
    rows = []
    for row in result["rows"]:
        row = {**row, "rss_mib": row.get("rss_mib", row.get("peak_rss_mib", ""))}
        qos = f", QoS {row['qos']}" if row["qos"] != "" else ""
        who = LATENCY.get(row["who"], row["who"])
        rows.append([row["what"], f"{who}{qos}", *(figure(row.get(key, "")) for key in keys)])
    return table(head, rows)


def events(result: Result) -> str:
    rows = []
    for name, case in result["cases"].items():
        rates = [figure(case["per_second"].get(kind, "")) for kind in (AGENT, "asyncio", "uvloop")]
        rows.append([name, *rates, *(figure(case["ratios"].get(kind, "")) for kind in ("asyncio", "uvloop"))])
    return table(["a second", "ours", "asyncio", "uvloop", "to asyncio", "to uvloop"], rows)


TABLES: dict[str, Callable[[Result], str]] = {
    made.__name__: made for made in (flood, latency, idle, coldstart, reload, page, backlog, scale, zero, events)
}
DRAWN: dict[str, Callable[[Result], dict[str, str]]] = {
    "flood": flood_charts,
    "latency": latency_charts,
    "scale": scale_charts,
}


def promises(result: Result) -> str:
    """What was promised, and was not kept in this run."""
    limits = result.get("limits", [])
    missed = [f"**not met**: {limit['promise']}" for limit in limits if not limit["met"]]
    kept = len(limits) - len(missed)
    return "; ".join([*([f"{kept} of {len(limits)} promises met"] if limits else []), *missed])


def machine(result: Result) -> str:
    where = result.get("machine")
    if not isinstance(where, dict):
        return ""
    return f"Python {where['python']}, {where['cores']} cores of {where['cpu']}, load before {where['load_before']:.1f}"


def fill(page: str, name: str, text: str) -> str:
    """The page with what stands between the marks of that name replaced. Raises ValueError without such marks."""
    mark = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not mark.search(page):
        raise ValueError(f"{PAGE.name} has no <!-- {name} --> ... <!-- end -->")
    return mark.sub(lambda m: f"{m[1]}{text}\n{m[2]}", page)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.plots", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=guard.RESULTS, help="default: bench/results")
    folder: Path = parser.parse_args(argv).folder
    page = PAGE.read_text()
    CHARTS.mkdir(exist_ok=True)
    for name, make in TABLES.items():
        file = folder / f"{name}.json"
        if not file.exists():
            print(f"{name}: not run, left as it is")
            continue
        result = json.loads(file.read_text())
        below = ". ".join(filter(None, (machine(result), promises(result))))
        page = fill(page, name, f"{make(result)}\n" + (f"\n<sub>{below}.</sub>\n" if below else ""))
        for chart, text in DRAWN[name](result).items() if name in DRAWN else ():
            (CHARTS / f"{chart}.svg").write_text(text)
    PAGE.write_text(page)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
