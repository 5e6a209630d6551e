"""The command `outstation init`: its questions, and what it does when there is nobody to answer them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli_completion import port_names
from agent.cli_config import ConfigFailure
from agent.config_files import DEFAULT_FILE

if TYPE_CHECKING:
    from agent.cli_init_file import Answers
    from agent.ports_list import SerialDevice

EX_IOERR = 74
LOCAL = "mqtt://127.0.0.1:1883"


class Unwritable(click.ClickException):
    """Ends the command with status 74."""

    exit_code = EX_IOERR


@click.command(short_help="Write a configuration, by a few questions or by options.")
@click.option(
    "-o",
    "-c",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    default=DEFAULT_FILE,
    show_default=True,
)
@click.option("--id", "agent", metavar="NAME", help="This agent's name in topics. Default: the host's.")
@click.option("--url", metavar="URL", help=f"The broker: mqtt://, mqtts://, ws://, wss://. Default: {LOCAL}.")
@click.option("--username", metavar="NAME", help="User name at the broker.")
@click.option("--password-file", type=click.Path(path_type=Path), metavar="FILE", help="File that has its password.")
@click.option("--password-env", metavar="NAME", help="Environment variable with its password.")
@click.option("--ca-file", type=click.Path(path_type=Path), metavar="FILE", help="Who may sign its certificate.")
@click.option(
    "--port",
    "ports",
    metavar="PORT",
    multiple=True,
    shell_complete=port_names,
    help="Listen there, and read what is found. Repeatable.",
)
@click.option("--host/--no-host", "host", default=None, help="Report this host itself. Default: yes.")
@click.option("--discovery/--no-discovery", default=None, help="For Home Assistant. Default: no.")
@click.option(
    "--seconds", type=click.FloatRange(0.1, 600), default=2.5, show_default=True, help="On a port, at each bit rate."
)
@click.option("--yes", is_flag=True, help="Ask nothing: defaults for all that no option says.")
@click.option("--force", is_flag=True, help="Replace FILE, and a password that was kept beside it.")
def init(output: Path, ports: tuple[str, ...], seconds: float, yes: bool, force: bool, **given: Any) -> None:
    """Write a configuration that `check` accepts, with a comment on each line that is likely to change.

    Asks for what no option says: this agent's name, the broker, a password (kept in a file beside FILE that its owner
    alone can read, never in FILE), and whether to listen on the serial ports that are here, as `probe` does. Without a
    terminal, or with --yes, it asks nothing. A file that is there already is not touched without --force.

    \b
    Exit status:
      0   written
      2   FILE is there already, an option is wrong, or there is no terminal to ask on
      74  FILE cannot be written
      78  together with the drop-ins beside it, it would be wrong; nothing was written

    \b
    Examples:
      sudo outstation init
      outstation init -o my.toml
      outstation init -o my.toml --yes --url mqtts://broker.example --port /dev/ttyUSB0
    """
    from agent.cli_init_file import devices, write
    from agent.errors import ConfigError
    from agent.ports_list import serial_devices

    if output.exists() and not force:
        raise click.UsageError(f"{output} is there already: --force replaces it, -o FILE writes another")
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask on: --yes takes the options, and defaults for the rest")
    found = serial_devices()
    answers = _answers(given, ask=not yes)
    if not ports and not yes:
        ports = _ports(found)
    if ports:
        answers.devices += devices(ports, found, seconds)
    try:
        written = write(output, answers, force=force)
    except ConfigError as error:
        raise ConfigFailure(error) from None
    except FileExistsError as error:
        raise click.UsageError(f"{error.filename} is there already: --force replaces it") from None
    except OSError as error:
        remedy = (
            "run it as root, or write another by -o" if isinstance(error, PermissionError) else "is the path right?"
        )
        raise Unwritable(f"{error.filename or output} cannot be written: {error.strerror}; {remedy}") from None
    for line in written:
        click.echo(line)


def _answers(given: dict[str, Any], *, ask: bool) -> Answers:
    """By the options, by whoever sits there, and by defaults. Raises click.UsageError where an option is wrong."""
    from agent.cli_broker import broker_settings
    from agent.cli_init_file import Answers
    from agent.config import default_id

    agent = _asked("Name of this agent in topics", given["agent"], default_id(), ask, _id, "--id")
    url = _asked("Broker", given["url"], LOCAL, ask, lambda text: broker_settings(text).urls[0], "--url")
    username = given["username"]
    if username is None and ask and not (given["password_file"] or given["password_env"]):
        username = click.prompt("User name at the broker (empty: none)", default="", show_default=False) or None
    password = None
    if ask and username and not (given["password_file"] or given["password_env"]):
        text = "Its password (is not shown; empty: none)"
        password = click.prompt(text, default="", hide_input=True, show_default=False) or None
    broker = {key: value for key in ("password_file", "password_env", "ca_file") if (value := given[key]) is not None}
    broker_settings(str(url), username=username, **broker)  # says here what is wrong with them together
    discovery, host = given["discovery"], given["host"]
    if ask and discovery is None:
        discovery = click.confirm("Announce all devices to Home Assistant?", default=False)
    if ask and host is None:
        host = click.confirm("Report this host itself (CPU, memory, disks, network)?", default=True)
    return Answers(str(agent), str(url), username, password, broker, bool(discovery), host is not False)


def _asked(question: str, given: str | None, default: str, ask: bool, check: Callable[[str], Any], option: str) -> Any:
    """click asks again where ``check`` raises UsageError."""
    if given is None and ask:
        return click.prompt(question, default=default, value_proc=check)
    try:
        return check(default if given is None else given)
    except click.UsageError as error:
        raise click.BadParameter(error.message.removeprefix(f"{option}: "), param_hint=option) from None


def _id(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text):
        raise click.UsageError("at most 64 of A-Z a-z 0-9 _ -")
    return text


def _ports(found: list[SerialDevice]) -> tuple[str, ...]:
    """Which of the ports that are here are to be listened on."""
    from agent.cli_probing import listing
    from agent.ports_errors import holders

    free = [device.path for device in found if not holders(device.path)]
    if not found:
        click.echo(
            "There is no serial port with hardware behind it here; `outstation probe` finds one that is plugged in."
        )
        return ()
    for line in listing(found):
        click.echo(line)
    return tuple(path for path in free if click.confirm(f"Listen on {path} to find out what it sends?", default=True))
