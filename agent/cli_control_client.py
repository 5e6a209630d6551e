"""Asks the agent that runs with a configuration's outbox."""

from __future__ import annotations

import socket
from typing import Any

import click
import orjson

from agent.config import Config
from agent.control import socket_path

TIMEOUT = 60.0
"""Seconds for an answer: a reload reads files and stops devices."""


class NoAgent(click.ClickException):
    """Ends a command with status 69."""

    exit_code = 69  # EX_UNAVAILABLE


class Absent(NoAgent):
    """There is none, as far as this user can see."""


def ask(config: Config, op: str) -> Any:
    """What the agent answers. Raises Absent where there is none, NoAgent where it cannot be asked, ClickException where
    it says no."""
    path = socket_path(config.outbox.file())
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(TIMEOUT)
            connection.connect(str(path))
            connection.sendall(orjson.dumps({"op": op}) + b"\n")
            answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    except PermissionError:
        raise NoAgent(f"{path} may not be opened: run it as the agent's user, or as root") from None
    except (FileNotFoundError, ConnectionRefusedError):
        raise Absent(f"no agent runs with this outbox ({path}); is it another configuration's? see -c") from None
    except OSError as error:
        raise NoAgent(f"the agent at {path} does not answer: {error.strerror or error}") from None
    if not answer:
        raise NoAgent(f"the agent at {path} has closed the connection; it is busy, or about to end")
    said = orjson.loads(answer)
    if not said["ok"]:
        raise click.ClickException(said["error"])
    return said["data"]
