"""The options by which a command finds a broker: an URL and what goes with it, or the agent's own configuration."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agent.config_files import DEFAULT_FILE

if TYPE_CHECKING:
    from agent.mqtt_settings import MqttSettings

EX_UNAVAILABLE = 69
PASSWORD = "mqtt-password"
"""Name of the file beside the service's configuration; the unit's drop-in password.conf knows it by this name."""

Command = TypeVar("Command", bound=Callable[..., Any])

_FILE = click.Path(path_type=Path)

_OPTIONS = (
    click.option("--username", metavar="NAME", help="User name at that broker."),
    click.option("--password-file", type=_FILE, metavar="FILE", help="File with the password."),
    click.option("--password-env", metavar="NAME", help="Environment variable with the password."),
    click.option("--ca-file", type=_FILE, metavar="FILE", help="Who may sign its certificate. Default: the system's."),
    click.option("--cert-file", type=_FILE, metavar="FILE", help="The client's certificate."),
    click.option("--key-file", type=_FILE, metavar="FILE", help="The certificate's key. Default: in --cert-file."),
    click.option("--insecure-skip-verify", is_flag=True, help="Accept any certificate. For tests alone."),
)
"""Named as the keys of [mqtt]. No password is an argument: every user of a machine sees those of all processes."""


def broker_options(command: Command) -> Command:
    """User, password's place and TLS of ``--url``; they arrive as keyword arguments for ``broker_settings``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def broker_settings(url: str, **options: Any) -> MqttSettings:
    """Settings of a broker from the command line. Raises click.UsageError with all that is wrong."""
    from pydantic import ValidationError

    from agent.mqtt_settings import MqttSettings

    given = {key: value for key, value in options.items() if value is not None}
    try:
        return MqttSettings(urls=(url,), **given)
    except ValidationError as error:
        wrong = [f"{as_option(problem['loc'])}{problem['msg']}" for problem in error.errors(include_input=False)]
        raise click.UsageError(in_options("; ".join(wrong))) from None


def by_hand(settings: MqttSettings, file: str) -> MqttSettings:
    """The settings of a configuration for a command that a person types, with the password that the service would get.

    systemd hands that over (deploy/outstation.service.d/password.conf), to the service alone: root reads the file. Of
    no other configuration: its broker may be another one, which is to see no password of this one.
    """
    kept = Path(DEFAULT_FILE).with_name(PASSWORD)
    named = settings.password_file or settings.password_env or os.environ.get("CREDENTIALS_DIRECTORY")
    if named or file != DEFAULT_FILE or not os.access(kept, os.R_OK):
        return settings
    return settings.model_copy(update={"password_file": kept})


def as_option(place: tuple[int | str, ...]) -> str:
    """``--ca-file: `` for a place in the settings; nothing for the settings as a whole."""
    if not place:
        return ""
    key = "url" if place[0] == "urls" else str(place[0])
    return f"--{key.replace('_', '-')}: "


def in_options(text: str) -> str:
    """What a message says of the configuration's keys, said of this command's options: mqtt.ca_file, --ca-file."""
    text = re.sub(r"\bmqtt\.urls\b", "--url", text)
    return re.sub(
        r"(?<![\w-])(?:mqtt\.)?(username|password_file|password_env|ca_file|cert_file|key_file|insecure_skip_verify)\b",
        lambda match: "--" + match[1].replace("_", "-"),
        text,
    )
