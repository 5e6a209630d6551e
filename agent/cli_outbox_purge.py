"""`outstation outbox purge`: forget what is older than a time."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from pathlib import Path

import click

from agent.cli_outbox_file import Outbox, Progress
from agent.clock import rfc3339
from agent.outbox_store import Contents, Store
from agent.quantity import duration

CHUNK = 1000
"""Readings in one commit: a few milliseconds of a disk."""


def main(path: Path | None, config_file: str, *, device: str | None, before: str, yes: bool) -> int:
    """Count, ask, remove; the exit status. Raises Failure, click.Abort."""
    outbox = Outbox(path, config_file)
    clock = outbox.clock
    limit_ns = moment(before, clock.wall_ns(clock.mono_ns()))
    with outbox.reader() as reader:
        outbox.known(reader, device)
    with outbox.store() as (store, contents):
        rows, counts = _old(store, contents, device, limit_ns, clock.settle()[0])
        if not rows:
            click.echo(f"nothing was taken before {rfc3339(limit_ns)}")
            return 0
        for name, count in sorted(counts.items()):
            click.echo(f"{name}: {count}")
        if not yes:
            click.confirm(f"remove {len(rows)} taken before {rfc3339(limit_ns)}? They are lost then", abort=True)
        with Progress(len(rows), "removing") as progress:
            for start in range(0, len(rows), CHUNK):
                store.begin()
                store.delete(rows[start : start + CHUNK])
                store.commit()
                progress.add(len(rows[start : start + CHUNK]))
        if contents.last and not store.fetch(0, contents.last, 1):
            store.give_back()
    click.echo(f"removed {len(rows)}")
    return 0


def _old(
    store: Store, contents: Contents, device: str | None, limit_ns: int, offset_ns: int
) -> tuple[list[int], Counter[str]]:
    """Rows to remove, and how many by device. All are looked at: after a step of the clock times are in no order."""
    rows: list[int] = []
    counts: Counter[str] = Counter()
    after = 0
    while readings := store.fetch(after, contents.last, CHUNK):
        after = readings[-1].row
        for reading in readings:
            taken_ns = reading.mono_ns + offset_ns if reading.wall_ns is None else reading.wall_ns
            if taken_ns < limit_ns and device in (None, reading.device):
                rows.append(reading.row)
                counts[reading.device] += 1
    return rows, counts


def moment(text: str, now_ns: int) -> int:
    """Nanoseconds since the epoch: of ``2026-11-24T00:00:00Z`` (RFC 3339), or ``7d`` ago. Raises click.BadParameter."""
    try:
        return now_ns - int(duration(text) * 1e9)
    except ValueError:
        pass
    try:
        then = datetime.fromisoformat(text)
    except ValueError:
        then = None
    if then is None or then.tzinfo is None:
        raise click.BadParameter(
            f"{text!r} is neither a time as 2026-11-24T00:00:00Z or 2026-11-24T01:00:00+01:00, nor an age as 12h or 7d",
            param_hint="--before",
        )
    return int(then.timestamp()) * 1_000_000_000 + then.microsecond * 1000
