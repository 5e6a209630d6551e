"""The group `outstation outbox`: what its commands take and say. What they do is imported when they do it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from agent.cli_broker import broker_options
from agent.cli_config import config_option

Command = TypeVar("Command", bound=Callable[..., Any])


def file_options(command: Command) -> Command:
    """``--file``, or ``-c`` for the file of a configuration."""
    option = click.option(
        "--file",
        "path",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The outbox. Default: the configuration's.",
    )
    return option(config_option(command))


_device = click.option("--device", metavar="NAME", help="Of this device alone.")


@click.group(short_help="Look into the outbox: the readings that wait on disk.")
def outbox() -> None:
    """Look into the file of readings that wait for the broker, empty it into another one, or clear it.

    stats, peek, export and verify change nothing, and work beside a running agent. drain and purge need the file for
    themselves: stop the agent first.

    \b
    Examples:
      outstation outbox stats
      outstation outbox export --file outbox.db > readings.jsonl
      outstation outbox drain --url mqtt://192.168.1.2
    """


@outbox.command(short_help="What waits, by device.")
@file_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
def stats(path: Path | None, file: str, as_json: bool) -> None:
    """What waits: readings and bytes by device, from when to when, and whether the file is sound.

    \b
    Examples:
      outstation outbox stats
      outstation outbox stats --file /var/lib/outstation/outbox.db --json
    """
    from agent.cli_outbox_look import stats as run

    sys.exit(run(path, file, as_json=as_json))


@outbox.command(short_help="The next readings to be sent.")
@file_options
@_device
@click.option("-n", "count", type=click.IntRange(min=1), default=10, show_default=True, help="How many.")
@click.option("--newest", is_flag=True, help="The last ones instead of the next.")
def peek(path: Path | None, file: str, device: str | None, count: int, newest: bool) -> None:
    """Show the readings that will be sent next, or those that came last.

    \b
    Examples:
      outstation outbox peek
      outstation outbox peek -n 3 --device weather --newest
    """
    from agent.cli_outbox_look import peek as run

    sys.exit(run(path, file, device=device, count=count, newest=newest))


@outbox.command(short_help="All that waits, as JSON Lines.")
@file_options
@_device
@click.option(
    "-o", "--output", metavar="FILE", default="-", help="Write there, whole or not at all; - is standard output."
)
def export(path: Path | None, file: str, device: str | None, output: str) -> None:
    """Write all that waits as JSON Lines: each reading as it would be published, and its device.

    Nothing is removed: the agent will still send it.

    \b
    Examples:
      outstation outbox export > readings.jsonl
      outstation outbox export --device weather -o weather.jsonl
      outstation outbox export | jq .fields
    """
    from agent.cli_outbox_look import export as run

    sys.exit(run(path, file, device=device, output=output))


@outbox.command(short_help="Whether the file is sound.")
@file_options
def verify(path: Path | None, file: str) -> None:
    """Check the file: its structure, the numbers of each device's readings, and the readings themselves.

    \b
    Exit status:
      0  it is sound
      1  it is damaged; what is wrong is listed

    \b
    Example:
      outstation outbox verify
    """
    from agent.cli_outbox_look import verify as run

    sys.exit(run(path, file))


@outbox.command(short_help="Send all that waits to a broker.")
@file_options
@click.option("--url", metavar="URL", required=True, help="The broker: mqtt://, mqtts://, ws://, wss://.")
@broker_options
@click.option("--agent", metavar="ID", help="Publish as this agent. Default: the one that the file is of.")
@click.option("--base", metavar="TOPIC", help="Topic before its id. Default: the configuration's, else outstation.")
@click.option(
    "--batch", type=click.IntRange(1, 1000), default=1, show_default=True, help="Readings in a message at most."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "influx", "senml", "cbor"]),
    help="Form of the readings. Default: the configuration's, else json.",
)
@click.option("--qos", type=click.IntRange(1, 2), default=1, show_default=True, help="QoS of the readings.")
@click.option("--client-id", metavar="NAME", help="Client id. Default: one of its own.")
@click.option(
    "--mqtt-version",
    "version",
    type=click.Choice(["3.1.1", "5"]),
    default="3.1.1",
    show_default=True,
    help="Under 5 a broker says what it does not take, and why.",
)
def drain(path: Path | None, file: str, **options: Any) -> None:
    """Publish all that waits to a broker, under the topics and in the form of the agent; oldest first.

    A reading is removed from the file when this broker has acknowledged it, and for no other reason. Ctrl-C ends it at
    any time; what was not acknowledged stays. The agent must not run meanwhile.

    \b
    Exit status:
      0   all is sent
      1   some is left: interrupted, or the broker does not take it
      69  the broker cannot be reached, or refuses us
      75  a process has the file; its pid is told

    \b
    Examples:
      outstation outbox drain --url mqtt://192.168.1.2
      outstation outbox drain --file outbox.db --url mqtts://broker.example --username ann --password-env PW --batch 100
    """
    from agent.cli_outbox_drain import main as run

    sys.exit(run(path, file, **options))


@outbox.command(short_help="Forget what is older than a time.")
@file_options
@_device
@click.option("--before", metavar="TIME", required=True, help="RFC 3339, as 2026-11-24T00:00:00Z, or an age, as 7d.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(path: Path | None, file: str, device: str | None, before: str, yes: bool) -> None:
    """Remove what was taken before a time. It is lost then; `outbox export` keeps a copy.

    Shows how many of which device, and asks. The agent must not run meanwhile.

    \b
    Examples:
      outstation outbox purge --before 7d
      outstation outbox purge --before 2026-11-24T00:00:00Z --device weather --yes
    """
    from agent.cli_outbox_purge import main as run

    sys.exit(run(path, file, device=device, before=before, yes=yes))
