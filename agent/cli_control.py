"""The commands that ask the running agent on this machine: `status` and `reload`."""

from __future__ import annotations

import sys

import click

from agent.cli_config import config_option, load_config


@click.command(short_help="The running agent on this machine, at a glance.")
@config_option
@click.option("--json", "as_json", is_flag=True, help="The whole status report as JSON, for scripts.")
def status(file: str, as_json: bool) -> None:
    """What the running agent does: link, readings, outbox, clock, and each device with its reason if it is away.

    Exit status: 0 if all is well, 1 if something is not, 69 if no agent with this configuration's outbox runs here.

    \b
    Examples:
      outstation status
      outstation status --json
      outstation status -c my.toml
    """
    from agent.cli_control_client import ask
    from agent.cli_control_text import glance

    report = ask(load_config(file), "status")
    if as_json:
        import orjson

        click.echo(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    lines, well = glance(report)
    if not as_json:
        for text in lines:
            click.echo(text)
    sys.exit(0 if well else 1)


@click.command(short_help="Have the running agent read its configuration anew.")
@config_option
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
def reload(file: str, dry_run: bool) -> None:
    """Check the configuration, then have the running agent apply it; say what has changed.

    Only devices that changed are restarted. A wrong configuration changes nothing (exit status 78).

    \b
    Examples:
      outstation reload --dry-run
      outstation reload
    """
    from agent.cli_control_client import ask
    from agent.cli_control_text import changes

    config = load_config(file)  # judged here as well, where all that is wrong can be shown
    for text in changes(ask(config, "plan" if dry_run else "reload"), done=not dry_run):
        click.echo(text)
