"""The command `outstation simulate`: what it takes, and from that to what it is to do."""

from __future__ import annotations

import re
import secrets
import sys
from typing import Any

import click

from agent.cli_broker import EX_UNAVAILABLE, broker_options, broker_settings, in_options
from agent.errors import LinkError
from agent.quantity import duration

_ID = re.compile(r"[A-Za-z0-9_-]+")
MOST_AGENTS = 50_000


@click.command(short_help="Simulate many agents, to find out what a broker carries.")
@click.option("--url", "urls", multiple=True, required=True, metavar="URL", help="The broker; of a cluster, each node.")
@broker_options
@click.option(
    "--agents", type=click.IntRange(1, MOST_AGENTS), metavar="N", default=100, show_default=True, help="Agents."
)
@click.option(
    "--devices", type=click.IntRange(1, 1000), metavar="M", default=4, show_default=True, help="Devices of each agent."
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True, max=1000),
    metavar="R",
    default=1.0,
    show_default=True,
    help="Readings a second of each device.",
)
@click.option("--duration", metavar="TIME", help="End so long after the last agent was started. Default: at Ctrl-C.")
@click.option("--ramp", metavar="TIME", help="Start the agents over this time. Default: 10ms for each; 0s is a storm.")
@click.option(
    "--qos", type=click.IntRange(0, 2), metavar="0|1|2", default=1, show_default=True, help="Of the readings."
)
@click.option("--base", metavar="TOPIC", help="Topic before the agent's id. Default: outstation.")
@click.option("--name", metavar="ID", help="Agents are ID-1, ID-2 ... Default: sim- and four random digits.")
@click.option("--every", metavar="TIME", default="10s", show_default=True, help="Between two lines in a pipe.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object at the end, for scripts.")
def simulate(**options: Any) -> None:
    """Simulate many agents with simulated devices in this process, to find out what a broker carries.

    Each is made of the agent's own parts (connection, in-flight window, status reports, Will), with an outbox in
    memory. It shows how long connecting takes, what is published and acknowledged each second and how soon, what an
    agent costs in CPU and memory here, and whether any reading is lost. With several --url, agents begin at different
    ones and go to the others when theirs is lost. At the end everything retained is removed from the broker.

    One process uses one core. When its CPU nears 100 %, or the event loop is late, it measures itself and not the
    broker: start several, on several machines. The broker needs a file descriptor for each agent (LimitNOFILE=).

    \b
    Exit status:
      0   every agent connected, every reading acknowledged
      1   a reading was lost, or an agent was not connected at the end
      2   the command line is wrong, or this machine does not allow so many agents
      69  the broker cannot be reached, or refuses us

    \b
    Examples:
      outstation simulate --url mqtt://192.168.1.2
      outstation simulate --url mqtt://192.168.1.2 --agents 2000 --devices 4 --rate 1 --duration 5m --json
      outstation simulate --url mqtts://broker.example --ca-file ca.pem --agents 500 --ramp 0s --duration 60s
    """
    sys.exit(start(**options))


def start(
    *,
    urls: tuple[str, ...],
    agents: int,
    devices: int,
    rate: float,
    duration: str | None,
    ramp: str | None,
    qos: int,
    base: str | None,
    name: str | None,
    every: str,
    as_json: bool,
    **broker: Any,
) -> int:
    """Run it; the exit status. Raises click.UsageError."""
    lasting = None if duration is None else _seconds(duration, "--duration", least=0.1)
    ramping = agents * 0.01 if ramp is None else _seconds(ramp, "--ramp")
    pause = _seconds(every, "--every", least=0.1)
    name = name or f"sim-{secrets.token_hex(2)}"
    if not _ID.fullmatch(name):
        raise click.BadParameter("the id of an agent is of A-Z a-z 0-9 _ -", param_hint="--name")
    if len(set(urls)) < len(urls):
        raise click.BadParameter("the same URL twice", param_hint="--url")
    for url in urls:
        settings = broker_settings(url, base=base, qos=qos, **broker)
    rotated = tuple(settings.model_copy(update={"urls": urls[at:] + urls[:at]}) for at in range(len(urls)))

    from agent.simulate import Options, SimulateError, main

    moving = not as_json and sys.stdout.isatty()
    try:
        return main(Options(rotated, name, agents, devices, rate, ramping, lasting, pause, as_json, moving))
    except SimulateError as error:
        raise click.UsageError(str(error)) from None
    except LinkError as error:
        click.echo(f"outstation simulate: {in_options(str(error))}", err=True)
        return EX_UNAVAILABLE


def _seconds(text: str, option: str, *, least: float = 0.0) -> float:
    try:
        seconds = duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from None
    if seconds < least:
        raise click.BadParameter(f"{least:g} seconds at least", param_hint=option)
    return seconds
