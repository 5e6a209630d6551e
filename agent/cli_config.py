"""The configuration as commands ask for it: ``-c FILE``, and what they say when it is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from agent.config_files import DEFAULT_FILE, DROP_INS

if TYPE_CHECKING:
    from agent.config import Config
    from agent.errors import ConfigError

EX_CONFIG = 78

Command = TypeVar("Command", bound=Callable[..., Any])


class ConfigFailure(click.ClickException):
    """Ends a command with status 78 and all that is wrong, on stderr."""

    exit_code = EX_CONFIG

    def __init__(self, error: ConfigError) -> None:
        super().__init__(str(error))
        self.error = error

    def show(self, file: IO[Any] | None = None) -> None:
        from agent.config import problems_text

        count = len(self.error.problems)
        click.echo(
            f"outstation: {count} problem{'s' * (count > 1)} in the configuration\n", file=file, err=file is None
        )
        for line in problems_text(self.error):
            click.echo(line, file=file, err=file is None)


def config_option(command: Command) -> Command:
    """``-c FILE``. Whether the file is there is for the loader to say: its answer has a remedy."""
    return click.option(
        "-c",
        "--config",
        "file",
        type=click.Path(),  # so that shells complete it
        metavar="FILE",
        default=DEFAULT_FILE,
        show_default=True,
        envvar="OUTSTATION_CONFIG",
        show_envvar=True,
        help=f"The configuration; the drop-ins {DROP_INS}/*.toml beside it belong to it.",
    )(command)


def read_config(file: str, *, set_aside: bool = False) -> Config:
    """Raises ConfigError with all that is wrong. set_aside: see ``agent.config.load``."""
    from agent.config import load
    from agent.registry import discover

    return load(file, discover(), set_aside=set_aside)


def load_config(file: str, *, set_aside: bool = False) -> Config:
    """Ends the command where the configuration is wrong."""
    from agent.errors import ConfigError

    if not file:
        raise click.BadParameter("the name of the file is empty", param_hint="--config")
    try:
        return read_config(file, set_aside=set_aside)
    except ConfigError as error:
        raise ConfigFailure(error) from None
