"""The command `outstation new-driver`: a driver that works, with its case and its test, to be changed into another."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

import click


@click.command("new-driver", short_help="Write a new driver, with its case and its test.")
@click.argument("name")
@click.option("--poll", is_flag=True, help="A device that has to be asked. Default: one that sends by itself.")
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    default=".",
    metavar="FOLDER",
    help="Where. Default: here.",
)
@click.option("--builtin", is_flag=True, help="Into a checkout of Outstation: FOLDER is its root.")
def new_driver(name: str, poll: bool, into: Path, builtin: bool) -> None:
    """Write a driver that works, with a golden case and a test that pass; then change it to your device, step by step.

    It becomes a package of its own, FOLDER/outstation-NAME, which pip installs and the agent finds; with --builtin a
    driver of a checkout. docs/drivers.md walks through one.

    \b
    Examples:
      outstation new-driver scale
      cd outstation-scale && python -m pytest
      outstation new-driver scale --poll --builtin --into .
    """
    from agent import cli_new_driver_files as files
    from agent.registry import discover

    if not re.fullmatch(r"[a-z][a-z0-9_]{1,30}", name) or keyword.iskeyword(name):
        raise click.BadParameter("2 to 31 of a-z 0-9 _, a letter first, and no word of Python", param_hint="NAME")
    if not into.is_dir():
        raise click.BadParameter(f"{into} is no folder", param_hint="--into")
    if name in discover().names:
        raise click.BadParameter(f"there is a driver {name!r} already (outstation drivers)", param_hint="NAME")
    try:
        written = files.builtin(into, name, poll) if builtin else files.package(into, name, poll)
    except FileExistsError as error:
        raise click.UsageError(f"{error.filename} is there already") from None
    except files.NoCheckoutError as error:
        raise click.BadParameter(str(error), param_hint="--into") from None
    for path in written:
        click.echo(path)
    click.echo("")
    for line in files.next_steps(into, name, builtin):
        click.echo(line)
