"""The command `outstation watch`: what it takes, and from that to what it is to do."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from typing import Any

import click

from agent.cli_broker import EX_UNAVAILABLE, broker_options, broker_settings, in_options
from agent.cli_config import config_option
from agent.cli_verify_command import configured, terminal
from agent.codec_template import Template
from agent.errors import LinkError
from agent.quantity import duration

_ID = re.compile(r"[A-Za-z0-9_-]+")


@click.command(short_help="See live what all agents at a broker say.")
@click.option(
    "--url", metavar="URL", help="The broker: mqtt://, mqtts://, ws://, wss://. Default: the configuration's."
)
@broker_options
@config_option
@click.option("--agent", metavar="ID", help="This agent alone. Default: all.")
@click.option("--base", metavar="TOPIC", help="Topic before the agent's id. Default: outstation.")
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), metavar="N", help="End after so long. Default: at Ctrl-C."
)
@click.option(
    "--every", metavar="TIME", default="1s", show_default=True, help="Between two lines of one device in a pipe."
)
@click.option("--json", "as_json", is_flag=True, help="JSON Lines: one object for each device with something new.")
@click.option("--plain", is_flag=True, help="Plain lines instead of a live table; the default without a terminal.")
def watch(file: str, **options: Any) -> None:
    """See live what all agents at a broker say: each device's state, number, rate, gaps and last reading.

    Offline ones come first, then those with gaps in "seq", then the rest by name. On a terminal it is a table as large
    as the window, drawn four times a second: n and p turn its pages, q or Ctrl-C ends it. In a pipe a line is written
    for each device with something new, at most one in --every. Without --url, the broker is the configuration's,
    and so is where the readings go (mqtt.topic).

    It shows and proves nothing: `outstation verify` does. With mqtt.format = "values" nothing is
    numbered: it shows the last values, and no gap.

    \b
    Exit status:
      0   ended by q, Ctrl-C or --seconds
      69  the broker cannot be reached, refuses us, or is away at the end

    \b
    Examples:
      outstation watch
      outstation watch --url mqtt://192.168.1.2
      outstation watch --url mqtt://192.168.1.2 --json | jq -c 'select(.state == "offline") | [.agent, .device]'
    """
    sys.exit(start(file, **options))


def start(
    file: str,
    *,
    url: str | None,
    agent: str | None,
    base: str | None,
    seconds: float | None,
    every: str,
    as_json: bool,
    plain: bool,
    **broker: Any,
) -> int:
    """Run it; the exit status. Raises click.UsageError, and ConfigFailure where the configuration is asked for."""
    try:
        pause = duration(every)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--every") from None
    if agent is not None and not _ID.fullmatch(agent):
        raise click.BadParameter("the id of an agent is of A-Z a-z 0-9 _ -", param_hint="--agent")
    own, template = "", None
    if url is not None:
        settings = broker_settings(url, base=base, **broker)
    else:
        config = configured(file, broker)
        settings, own = config.mqtt, config.agent.id
        if base is None and settings.topic is not None and settings.format != "values":
            template = Template(settings.topic)

    from agent.cli_verify import Show
    from agent.cli_watch_view import WatchOptions, main

    show: Show = "json" if as_json else "plain" if plain or not terminal() else "live"
    if show == "live" and find_spec("rich") is None:
        click.echo("a live table needs rich: pip install 'outstation[demo]'", err=True)
        show = "plain"
    try:
        return main(WatchOptions(settings, base or settings.base, agent, None, seconds, pause, show, template, own))
    except LinkError as error:
        text = in_options(str(error)) if url is not None else str(error)
        click.echo(f"outstation watch: {text}", err=True)
        return EX_UNAVAILABLE
