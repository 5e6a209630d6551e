"""What `outstation replay` does: a recording back through its driver, on a clock that goes with it."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import click
from pydantic import ValidationError

from agent.cli_config import EX_CONFIG
from agent.codec import encode_fields
from agent.driver import Context, DeviceConfig, Driver, Fault, Sample
from agent.events import EventManager
from agent.recording import LONGEST, Entry, RecordingError, read_entries, read_header
from agent.registry import discover
from agent.testing.cases import encoded, write_input
from agent.testing.cases import replay as replay_pieces
from agent.testing.context import FakeContext
from agent.testing.toml import dumps

EX_DATAERR = 65
CASE_BYTES = 1 << 20
"""Of a golden case at most: it is read by people, and replayed byte by byte."""


class Damaged(click.ClickException):
    """Ends the command with status 65: the file is no recording."""

    exit_code = EX_DATAERR


class Unfit(click.ClickException):
    """Ends the command with status 78: the device's table does not hold."""

    exit_code = EX_CONFIG


class Replay:
    """One device in memory, fed with entries in their order."""

    def __init__(self, driver: type[Driver], config: DeviceConfig, show: Callable[[str], None]) -> None:
        self._ctx = ctx = FakeContext(config.name)
        self._show = show
        self._begin = ctx.now()
        ctx.driver = driver(config, cast(Context, ctx))

    def begin(self) -> None:
        self._ctx.reopen()
        if self._ctx.opened is None:
            raise Unfit("this driver reads no port: there is nothing to feed it with")
        self._tell()

    def feed(self, entry: Entry) -> None:
        """Let the time pass until then, and what happened then happen."""
        ctx = self._ctx
        ctx.advance(max(0.0, self._begin + entry.t - ctx.now()))
        self._tell()
        port = ctx.opened
        assert port is not None, "begin has looked"
        if entry.kind == "lost" and not port.closed:
            port.hang_up()
        elif entry.kind in ("opened", "rx") and port.closed:
            ctx.reopen()
        if entry.kind == "rx" and (port := ctx.opened) is not None:
            port.feed(entry.data)
        self._tell()

    def end(self) -> None:
        self._ctx.stop()
        self._tell()

    def _tell(self) -> None:
        ctx = self._ctx
        t = round(ctx.now() - self._begin, 6)
        for item in ctx.emitted:
            self._show(text_of(t, item))
        ctx.emitted.clear()
        ctx.samples.clear()
        ctx.faults.clear()


def text_of(t: float, item: Sample | Fault) -> str:
    """One line of JSON, the values as they would be published."""
    if isinstance(item, Sample):
        body = encode_fields(item.fields)
        return f'{{"t":{json.dumps(t)},"fields":{body.decode() if isinstance(body, bytes) else body}}}'
    raw = repr(bytes(item.raw[:64]))[2:-1]
    return json.dumps({"t": t, "fault": item.kind, "detail": item.detail, "raw": raw}, ensure_ascii=False)


def start(file: Path, speed: float | None, table: Path | None, case: Path | None) -> int:
    """Replay; the exit status. Raises click's errors."""
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(file.open(encoding="utf-8", errors="replace"))
        except OSError as error:
            raise click.FileError(str(file), error.strerror) from None
        try:
            recorded = read_header(stream.readline(LONGEST))
            device = recorded if table is None else _table(table)
            driver, config = _device(device)
            entries = read_entries(iter(lambda: stream.readline(LONGEST), ""))
            if case is not None:
                make_case(case, driver, config, entries, file.name)
                return 0
            _run(Replay(driver, config, click.echo), entries, speed)
        except RecordingError as error:
            raise Damaged(f"{file}: {error}") from None
    return 0


def _table(file: Path) -> dict[str, Any]:
    try:
        said = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Unfit(f"{file}: {error}") from None
    devices = said.get("device")
    if isinstance(devices, list) and len(devices) == 1 and isinstance(devices[0], dict):
        return devices[0]
    return said


def _device(table: dict[str, Any]) -> tuple[type[Driver], DeviceConfig]:
    name = table.get("driver")
    if not isinstance(name, str):
        raise Unfit(
            "the recording names no driver: write a table with name, driver, port and what else the driver needs into "
            "a file, and give it with --device"
        )
    registry = discover()
    if name not in registry.names:
        raise Unfit(f"no driver {name!r} is installed; there are: {', '.join(registry.names)}")
    entry = registry.load(name)
    if entry.cls is None:
        raise Unfit(f"the driver {name} cannot be loaded: {entry.error}")
    try:
        return entry.cls, entry.cls.Config(**table)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_input=False)]
        raise Unfit("the device's table: " + "; ".join(wrong)) from None


def _run(replay: Replay, entries: Iterator[Entry], speed: float | None) -> None:
    replay.begin()
    if speed is None:
        for entry in entries:
            replay.feed(entry)
        replay.end()
        return
    with EventManager() as manager:
        begin = manager.now()
        failure: list[RecordingError] = []

        def after(entry: Entry | None) -> None:
            if entry is not None:
                replay.feed(entry)
                sys.stdout.flush()
            try:
                following = next(entries, None)
            except RecordingError as error:
                failure.append(error)
                following = None
            if following is None:
                replay.end()
                manager.terminate()
                return
            delay = begin + following.t / speed - manager.now()
            manager.create_timer_event(max(1e-6, delay), after, following, repeat=False, name="replay")

        manager.call_soon(after, None)
        manager.loop()
    if failure:
        raise failure[0]


def make_case(folder: Path, driver: type[Driver], config: DeviceConfig, entries: Iterator[Entry], source: str) -> None:
    """A golden case of what was received, up to the first loss. Raises click's errors and RecordingError."""
    made = driver(config, cast(Context, None))
    if not hasattr(made, "parser"):
        raise Unfit(f"the driver {config.driver} has no parser: a golden case replays one")
    data = bytearray()
    for entry in entries:
        if entry.kind == "lost":
            break
        data += entry.data if entry.kind == "rx" else b""
        if len(data) > CASE_BYTES:
            raise Unfit(
                f"more than {CASE_BYTES} bytes were received: cut the recording, its lines stand for themselves"
            )
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise click.BadParameter(f"{folder} is there already", param_hint="--case") from None
    except OSError as error:
        raise click.FileError(str(folder), error.strerror) from None
    table = config.model_dump(mode="json", exclude_unset=True)
    (folder / "device.toml").write_text(f"# A recording: {source}\n{dumps(table)}", encoding="utf-8")
    write_input(folder, bytes(data))
    items = replay_pieces(made.parser(), [bytes(data)])
    (folder / "expected.jsonl").write_text(encoded(items), encoding="utf-8")
    click.echo(f"{folder}: {len(data)} bytes, {len(items)} items in expected.jsonl: read them", err=True)
