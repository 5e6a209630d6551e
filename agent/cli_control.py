"""The commands that ask the running agent on this machine: `status`, `plan` and `reload`."""

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


@click.command(short_help="What a configuration would change: devices, topics, entities.")
@config_option
@click.option(
    "--against",
    type=click.Path(),
    metavar="FILE",
    help="Compare with this configuration. Default: with the running agent.",
)
@click.option("--exit-code", is_flag=True, help="Exit status 1 where something would change.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
def plan(file: str, against: str | None, exit_code: bool, as_json: bool) -> None:
    """What would come (+), go (-) or change (~) with this configuration: devices, topics, Home Assistant's entities.

    Compares it with what runs with its outbox on this machine, so that a file can be tried before it is put in its
    place; where no agent runs, all of it is to come. What is marked "!" waits for a restart, all else for `reload`.
    Changes nothing. Channels that the wire alone names are known once the agent has seen them.

    \b
    Exit status:
      0   the plan is shown
      1   with --exit-code: something would change
      69  an agent runs, and may not be asked or does not answer

    \b
    Examples:
      outstation plan -c new.toml
      outstation plan -c new.toml --against /etc/outstation/outstation.toml
      outstation plan --exit-code >/dev/null || outstation reload
    """
    from agent.cli_control_client import Absent, ask
    from agent.cli_control_text import planned
    from agent.plan import NOTHING, changes_something, compare, side

    config = load_config(file)
    kinds = None
    if against is not None:
        old, other = side(load_config(against)), against
    else:
        try:
            running = ask(config, "running")
        except Absent as absent:
            old, other = NOTHING, f"nothing: {absent.message}"
        else:
            old, kinds, other = running["side"], running["kinds"], "the running agent"
    found = compare(old, side(config, kinds))
    if as_json:
        import orjson

        click.echo(orjson.dumps({"against": other, **found}, option=orjson.OPT_INDENT_2))
    else:
        click.echo(f"against {other}")
        for text in planned(found):
            click.echo(text)
    sys.exit(1 if exit_code and changes_something(found) else 0)


@click.command(short_help="Have the running agent read its configuration anew.")
@config_option
@click.option("--dry-run", is_flag=True, help="Only say what would change, as `plan` does.")
def reload(file: str, dry_run: bool) -> None:
    """Check the configuration, then have the running agent apply it; say what has changed.

    Only devices that changed are restarted. A wrong configuration changes nothing (exit status 78).

    \b
    Examples:
      outstation reload --dry-run
      outstation reload
    """
    from agent.cli_control_client import ask
    from agent.cli_control_text import changes, planned

    config = load_config(file)  # judged here as well, where all that is wrong can be shown
    for text in planned(ask(config, "plan")) if dry_run else changes(ask(config, "reload")):
        click.echo(text)
