"""Parts of the agent that few configurations have, or few runs: made, and imported, for those alone."""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

from agent.logline import line

if TYPE_CHECKING:
    from agent.app import Agent
    from agent.config import Config
    from agent.parsing import ParsingHost
    from agent.requests import Requests

EX_TEMPFAIL = 75
"""sysexits.h: the program could not be executed again, or another agent has the outbox; systemd starts it."""

log = logging.getLogger("outstation.agent")


def parsing_host(config: Config) -> ParsingHost | None:
    """Where slow parsers go, if they are to go to processes. What it takes is imported for those alone who want it."""
    if config.workers.kind == "thread":
        return None
    from agent.parsing import ParsingHost, gil_is_on

    return ParsingHost(config.loop.workers[1]) if gil_is_on() else None


def make_requests(agent: Agent) -> Requests | None:
    """What may be asked of it over MQTT, if anything may."""
    settings = agent.config.requests
    if not settings.enable:
        return None
    from agent.requests import Requests
    from agent.requests_operations import operations

    def restart() -> None:
        agent.again = True
        agent.restart(agent.config)

    requests = Requests(
        agent.config.agent.id,
        agent.topics,
        agent.manager,
        settings,
        operations(
            agent.config.agent.id,
            agent.manager,
            agent.status.build,
            agent.supervisor.devices,
            agent.commands,
            agent.reloader,
            restart,
        ),
        subscribe=agent.link.subscribe,
        fits=agent.link.fits,
        answer=agent.publisher.answer,
    )
    agent.status.requests = requests.report
    return requests


def begin_anew() -> int:
    """Execute this program again as it was called, in the same process (docs/decisions/055); else an exit status.

    Until it has handlers of its own, SIGHUP and SIGUSR1 would end it; ignored signals stay so (execve(2)).
    """
    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    except OSError as error:
        log.critical(line("agent.not_restarted", program=sys.executable, reason=error.strerror))
    return EX_TEMPFAIL
