"""`outstation outbox stats|peek|export|verify`: what only looks."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import click
import orjson

from agent.cli_outbox_file import EX_IOERR, Failure, Outbox, Progress
from agent.clock import rfc3339
from agent.codec import JsonCodec
from agent.model import Reading
from agent.outbox_reader import Reader, Sums, holder
from agent.outbox_store import VERSION, Boot
from agent.tally import compact

SHOWN = 20
"""Most lines of what is wrong with a file."""


def stats(path: Path | None, config_file: str, *, as_json: bool) -> int:
    """What waits, and in what state the file is; the exit status. Raises Failure."""
    outbox = Outbox(path, config_file)
    with outbox.reader() as reader:
        report = _report(outbox, reader)
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))
    else:
        for line in _lines(report):
            click.echo(line)
    return 1 if report["problems"] else 0


def _report(outbox: Outbox, reader: Reader) -> dict[str, Any]:
    meta = reader.meta()
    problems = reader.integrity(quick=True)
    sums = [] if problems else reader.sums()
    saved = meta.get("saved_wall_ns")
    return {
        "file": str(outbox.path),
        "bytes": _size(outbox.path),
        "wal_bytes": _size(outbox.path.with_name(f"{outbox.path.name}-wal")),
        "schema": VERSION,
        "pid": holder(outbox.path),
        "agent": meta.get("agent"),
        "saved": rfc3339(saved) if isinstance(saved, int) else None,
        "problems": problems,
        "boots": [_boot(boot, outbox.clock.boot_id) for boot in reader.boots()],
        "readings": sum(device.readings for device in sums),
        "reading_bytes": sum(device.size for device in sums),
        "devices": [_device(device) for device in sums],
    }


def _boot(boot: Boot, present: str) -> dict[str, Any]:
    return {"id": boot.uuid, "present": boot.uuid == present, "trusted": boot.trusted, "offset_ns": boot.offset_ns}


def _device(sums: Sums) -> dict[str, Any]:
    return {
        "device": sums.name,
        "readings": sums.readings,
        "bytes": sums.size,
        "oldest": None if sums.oldest_ns is None else rfc3339(sums.oldest_ns),
        "newest": None if sums.newest_ns is None else rfc3339(sums.newest_ns),
        "first_seq": sums.first_seq,
        "last_seq": sums.last_seq,
        "next_seq": sums.next_seq,
        "reserved": not sums.exact,
    }


def _lines(report: dict[str, Any]) -> Iterator[str]:
    wal = f", and {_megabytes(report['wal_bytes'])} in its -wal" if report["wal_bytes"] else ""
    yield f"file       {report['file']}: {_megabytes(report['bytes'])}{wal}; schema {report['schema']}"
    yield f"in use     {'by process ' + report['pid'] if report['pid'] else 'by nobody'}"
    yield f"agent      {report['agent'] or 'not noted yet'}"
    if report["problems"]:
        yield "integrity  DAMAGED; `outstation outbox verify` says more:"
        yield from (f"  {problem}" for problem in report["problems"])
        return
    yield "integrity  good, by a quick check"
    yield f"true time  {report['saved'] or 'not noted yet'}, the latest that was noted"
    for boot in report["boots"]:
        here = ", the present one" if boot["present"] else ""
        yield f"boot       {boot['id']}{here}; its clock was {'believed' if boot['trusted'] else 'not believed'}"
    yield f"readings   {report['readings']} wait, {_megabytes(report['reading_bytes'])}"
    if not report["devices"]:
        return
    width = max(6, *(len(device["device"]) for device in report["devices"]))
    yield ""
    yield f"{'device':<{width}} {'readings':>9} {'bytes':>10}  {'oldest':<20}  {'newest':<20}  next seq"
    for device in report["devices"]:
        oldest, newest = (f"{device[key][:19]}Z" if device[key] else "-" for key in ("oldest", "newest"))
        after = " or later" if device["reserved"] else ""
        yield (
            f"{device['device']:<{width}} {device['readings']:>9} {device['bytes']:>10}  {oldest:<20}  {newest:<20}  "
            f"{device['next_seq']}{after}"
        )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _megabytes(size: int) -> str:
    return f"{size} bytes" if size < 10_000 else f"{size / 1000:.0f} kB" if size < 1_000_000 else f"{size / 1e6:.1f} MB"


def peek(path: Path | None, config_file: str, *, device: str | None, count: int, newest: bool) -> int:
    """A few readings, for people. Raises Failure."""
    outbox = Outbox(path, config_file)
    with outbox.reader() as reader:
        outbox.known(reader, device)
        readings = list(islice(reader.readings(device, newest=count if newest else None), count))
        left = reader.count(device) - len(readings)
    if not readings:
        click.echo("nothing waits")
        return 0
    if newest and left > 0:
        click.echo(f"... {left} before")
    for reading in readings:
        published = orjson.loads(_payload(outbox, JsonCodec(), reading))
        marks = "".join(f"  {mark}" for mark in ("resumed",) if published.get(mark))
        marks += "  unsynced" if published.get("clock") else ""
        click.echo(f"{published['ts']}  {reading.device} #{reading.seq}  {compact(published['fields'])}{marks}")
    if not newest and left > 0:
        click.echo(f"... {left} more")
    return 0


def _payload(outbox: Outbox, codec: JsonCodec, reading: Reading) -> bytes:
    """As it would be published: after the next connection, so it is of a backlog."""
    return codec.encode([reading], outbox.clock, outbox.clock.mono_ns(), False)


def export(path: Path | None, config_file: str, *, device: str | None, output: str) -> int:
    """JSON Lines. Raises Failure."""
    outbox = Outbox(path, config_file)
    codec = JsonCodec()
    with outbox.reader() as reader:
        outbox.known(reader, device)
        with _target(output) as target, Progress(reader.count(device), "exporting") as progress:
            for reading in reader.readings(device):
                payload = _payload(outbox, codec, reading)
                target.write(b'{"device":%b,%b\n' % (orjson.dumps(reading.device), payload[1:]))
                progress.add()
    return 0


@contextmanager
def _target(output: str) -> Iterator[BinaryIO]:
    """Standard output, or a file that takes its name when it is whole."""
    if output == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = f"{output}.part"
    try:
        with open(part, "wb") as file:
            yield file
        os.replace(part, output)
    except OSError as error:
        raise Failure(f"{error.filename or output}: {error.strerror or error}", EX_IOERR) from None
    finally:
        with suppress(FileNotFoundError):
            os.unlink(part)


def verify(path: Path | None, config_file: str) -> int:
    """Everything about the file that can be wrong: 0 if nothing is, 1 if something is. Raises Failure."""
    outbox = Outbox(path, config_file)
    with outbox.reader() as reader:
        problems = reader.integrity(quick=False)
        count = found = 0
        if not problems:
            with Progress(reader.count(), "checking") as progress:
                for problem in reader.contents():
                    count += 1
                    progress.add()
                    if problem is not None:
                        found += 1
                        problems = [*problems, problem][:SHOWN]
    for problem in problems:
        click.echo(problem)
    if found > len(problems):
        click.echo(f"... and {found - len(problems)} more")
    if problems:
        click.echo(f"{outbox.path} is DAMAGED; the agent sets it aside when it meets that, and saves what it can read")
        return 1
    click.echo(f"{outbox.path} is sound: {count} reading{'' if count == 1 else 's'}")
    return 0
