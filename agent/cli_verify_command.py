"""The command `outstation verify`: what it takes, and from that to what it is to do."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from agent.cli_broker import EX_UNAVAILABLE, broker_options, broker_settings, by_hand, in_options
from agent.cli_config import config_option, load_config
from agent.codec_template import Template
from agent.errors import LinkError
from agent.quantity import duration

if TYPE_CHECKING:
    from agent.config import Config

_ID = re.compile(r"[A-Za-z0-9_-]+")


@click.command(short_help="Prove that no reading is lost: a subscriber that counts.")
@click.option(
    "--url", metavar="URL", help="The broker: mqtt://, mqtts://, ws://, wss://. Default: the configuration's."
)
@broker_options
@config_option
@click.option("--agent", metavar="ID", help="This agent alone. Default: all, or with a configuration its own.")
@click.option("--base", metavar="TOPIC", help="Topic before the agent's id. Default: outstation.")
@click.option("--client-id", metavar="NAME", help="Have the broker keep a session under this name, and queue for it.")
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), metavar="N", help="End after so long. Default: at Ctrl-C."
)
@click.option("--every", metavar="TIME", default="10s", show_default=True, help="Between two lines of totals.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object at the end, for scripts.")
@click.option("--plain", is_flag=True, help="Plain lines instead of a live table; the default without a terminal.")
def verify(file: str, **options: Any) -> None:
    """Prove that no reading is lost: listen at the broker, and judge by the numbers of the readings alone.

    For each device of each agent: how many arrived, how many are missing now (gaps in "seq"), came twice, or out of
    order. It begins anywhere: the first number that it sees of a device is the beginning. Without --url, broker and
    agent are those of the configuration, and where readings go (mqtt.topic) is as it says.

    What is missing may still come, from an agent that sends its backlog beside live readings; what is missing at the
    end counts as lost. Gaps prove nothing before a reading marked "resumed", and while nobody listened: they are
    counted apart. With --client-id the broker queues while the connection is away; a name must not be in use twice.

    \b
    Exit status:
      0   nothing lost, nothing out of order; duplicates are allowed
      1   something lost or out of order, or a number given twice
      66  no reading arrived: nothing is proved
      69  the broker cannot be reached, refuses us, or is away at the end

    \b
    Examples:
      outstation verify
      outstation verify --url mqtt://192.168.1.2 --agent greenhouse-1
      outstation verify --url mqtts://broker.example --client-id verify-1 --seconds 3600 --json
    """
    sys.exit(start(file, **options))


def start(
    file: str,
    *,
    url: str | None,
    agent: str | None,
    base: str | None,
    client_id: str | None,
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
    if client_id == "":
        raise click.BadParameter("the name is empty", param_hint="--client-id")
    template = None
    if url is not None:
        settings = broker_settings(url, base=base, client_id=client_id, **broker)
    else:
        config = configured(file, broker)
        if config.mqtt.format == "values":
            raise click.UsageError(
                'readings cannot be judged with mqtt.format = "values": a bare value has no "seq"; '
                "any other format carries it"
            )
        settings = config.mqtt if base is None else config.mqtt.model_copy(update={"base": base})
        agent = agent or config.agent.id
        template = Template(config.mqtt.topic) if config.mqtt.topic is not None and base is None else None

    from agent.cli_verify import Options, Show, main

    show: Show = "json" if as_json else "plain" if plain or not terminal() else "live"
    if show == "live" and find_spec("rich") is None:
        click.echo("a live table needs rich: pip install 'outstation[demo]'", err=True)
        show = "plain"
    try:
        return main(Options(settings, settings.base, agent, client_id, seconds, pause, show, template))
    except LinkError as error:
        text = in_options(str(error)) if url is not None else str(error)
        click.echo(f"outstation verify: {text}", err=True)
        return EX_UNAVAILABLE


def configured(file: str, broker: dict[str, Any]) -> Config:
    """The configuration, for a command without --url. Raises click.UsageError where it cannot be what is meant."""
    if given := [name for name, value in broker.items() if value]:
        raise click.UsageError(f"--{given[0].replace('_', '-')} belongs to --url; without it the configuration counts")
    if not os.path.exists(file):
        raise click.UsageError(f"which broker? say --url mqtt://host, or -c FILE: {file} is not there")
    config = load_config(file)
    return replace(config, mqtt=by_hand(config.mqtt, file))


def terminal() -> bool:
    """Whether standard output is one on which a table can move."""
    return sys.stdout.isatty() and os.environ.get("TERM") not in (None, "dumb", "unknown")
