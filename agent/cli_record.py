"""The commands `outstation record` and `outstation replay`: what they take. What they do comes later."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from agent.cli_config import config_option

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(short_help="Record what goes over a port, with its times.")
@config_option
@click.argument("device", metavar="DEVICE|PORT")
@click.option("-o", "--output", type=_FILE, metavar="FILE", required=True, help="A new file for it; - is stdout.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), metavar="N", help="End after so long.")
@click.option("--max-bytes", metavar="SIZE", default="64MB", show_default=True, help="End when the file is so large.")
@click.option("--baudrate", type=click.IntRange(50, 12_000_000), metavar="N", help="Of a PORT.  [default: 9600]")
@click.option("--parity", type=click.Choice(["none", "even", "odd"]), help="Of a PORT.  [default: none]")
@click.option("--bytesize", type=click.IntRange(5, 8), metavar="N", help="Of a PORT.  [default: 8]")
def record(
    file: str,
    device: str,
    output: Path,
    seconds: float | None,
    max_bytes: str,
    baudrate: int | None,
    parity: str | None,
    bytesize: int | None,
) -> None:
    """Record what goes over a port, with its times: of a device of the configuration, or of any port.

    DEVICE runs under its own driver, which asks what it has to ask; readings are counted and go nowhere. PORT, a path
    or an URL, is only listened to. The agent must not have the port open. Ends by Ctrl-C, --seconds or --max-bytes.

    \b
    Examples:
      outstation record weather -o weather.jsonl
      outstation record /dev/ttyUSB0 --baudrate 115200 --seconds 60 -o unknown.jsonl
      outstation record usb:0403:6001 -o - | head
    """
    from agent.cli_recording import start

    line = {"baudrate": baudrate, "parity": parity, "bytesize": bytesize}
    given = {key: value for key, value in line.items() if value is not None}
    sys.exit(start(file, device, output, seconds, max_bytes, given))


@click.command(short_help="Feed a recording to its driver.")
@click.argument("recording", type=_FILE, metavar="RECORDING")
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True),
    metavar="X",
    help="1: as it was recorded; 10: ten times as fast. Default: without waiting.",
)
@click.option(
    "--device",
    "table",
    type=_FILE,
    metavar="FILE",
    help="TOML with the table of the device, if not the recorded one: name, driver and so on.",
)
@click.option(
    "--case",
    "case",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Make a golden case of it: a new folder with device.toml, input and expected.jsonl.",
)
def replay(recording: Path, speed: float | None, table: Path | None, case: Path | None) -> None:
    """Feed a recording to its driver; print each reading and each fault, with the seconds since the beginning.

    The driver runs as in the agent, on a clock that goes with the recording: what it made of the bytes then it makes of
    them now, and in a debugger. A port that was recorded without a driver needs --device.

    \b
    Examples:
      outstation replay weather.jsonl
      outstation replay weather.jsonl --speed 1 | jq .fields.temperature
      outstation replay unknown.jsonl --device device.toml
      outstation replay weather.jsonl --case tests/cases/lines/weather
    """
    from agent.cli_replaying import start

    sys.exit(start(recording, speed, table, case))
