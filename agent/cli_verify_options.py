"""From the command line of `outstation verify` to what it is to do: broker, topics, form of the output."""

from __future__ import annotations

import os
import re
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from agent.cli_broker import EX_UNAVAILABLE, broker_settings, in_options
from agent.cli_config import load_config
from agent.errors import LinkError
from agent.quantity import duration

if TYPE_CHECKING:
    from agent.config import Config

_ID = re.compile(r"[A-Za-z0-9_-]+")


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
    if url is not None:
        settings = broker_settings(url, base=base, client_id=client_id, **broker)
    else:
        config = _config(file, broker)
        settings = config.mqtt if base is None else config.mqtt.model_copy(update={"base": base})
        agent = agent or config.agent.id

    from agent.cli_verify import Options, Show, main

    show: Show = "json" if as_json else "plain" if plain or not _terminal() else "live"
    if show == "live" and find_spec("rich") is None:
        click.echo("a live table needs rich: pip install 'outstation[demo]'", err=True)
        show = "plain"
    try:
        return main(Options(settings, settings.base, agent, client_id, seconds, pause, show))
    except LinkError as error:
        text = in_options(str(error)) if url is not None else str(error)
        click.echo(f"outstation verify: {text}", err=True)
        return EX_UNAVAILABLE


def _config(file: str, broker: dict[str, Any]) -> Config:
    if given := [name for name, value in broker.items() if value]:
        raise click.UsageError(f"--{given[0].replace('_', '-')} belongs to --url; without it the configuration counts")
    if not os.path.exists(file):
        raise click.UsageError(f"which broker? say --url mqtt://host, or -c FILE: {file} is not there")
    return load_config(file)


def _terminal() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM") not in (None, "dumb", "unknown")
