"""What may be asked of the agent over MQTT, and what each request may say."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from agent import __version__
from agent.commands import Commands
from agent.config import SECTIONS, Config
from agent.config_masked import masked, masked_value
from agent.control import Answer
from agent.device import Device
from agent.device_outputs import ANSWER_TIMEOUT
from agent.events import EventManager, TimerEvent
from agent.log import LEVELS, set_level
from agent.logline import line
from agent.outputs import Command
from agent.quantity import duration
from agent.reload import Reloader
from agent.requests import Operation, RequestError

LONGEST_READ = 300.0
"""Seconds that a request may wait for a reading: a meter that sends its whole readout at 300 Bd takes two minutes."""


def operations(
    agent: str,
    manager: EventManager,
    report: Callable[[], dict[str, Any]],
    devices: Mapping[str, Device],
    commands: Commands,
    reloader: Reloader,
    restart: Callable[[], object],
) -> Mapping[str, Operation]:
    """All there are, by name; which of them are enabled is for ``Requests``. report: builds the status report."""

    def ping(arguments: dict[str, Any], answer: Answer) -> None:
        _only(arguments)
        answer({"agent": agent, "version": __version__}, None)

    def status(arguments: dict[str, Any], answer: Answer) -> None:
        _only(arguments)
        answer(report(), None)

    def config(arguments: dict[str, Any], answer: Answer) -> None:
        _only(arguments)
        answer(described(reloader.config), None)

    def read(arguments: dict[str, Any], answer: Answer) -> None:
        _only(arguments, "device", "within")
        name, given = arguments.get("device"), arguments.get("within")
        if not isinstance(name, str):
            raise RequestError("arguments", 'device is due, as {"device": "meter"}')
        seconds = ANSWER_TIMEOUT if given is None else _seconds("within", given)
        if not 0 < seconds <= LONGEST_READ:
            raise RequestError("arguments", f"within is more than nothing, and {LONGEST_READ:g} s at most")
        device = devices.get(name)
        if device is None:
            raise RequestError("arguments", f"there is no device {name[:64]}")
        device.read(seconds, lambda came, problem: answer({"device": name, **(came or {})}, problem))

    def reload(arguments: dict[str, Any], answer: Answer) -> None:
        _only(arguments)
        reloader.request(answer)

    def set_output(arguments: dict[str, Any], answer: Answer) -> None:
        _only(arguments, "device", "channel", "value")
        device, channel, value = (arguments.get(key) for key in ("device", "channel", "value"))
        if not isinstance(device, str) or not isinstance(channel, str):
            raise RequestError("arguments", 'device and channel are due, as {"device": "relays", "channel": "pump"}')
        if not isinstance(value, str | int | float | None):
            raise RequestError("arguments", "value is a string, a number, true or false")
        commands.carry_out(device, channel, Command(value), answer)

    def restart_agent(arguments: dict[str, Any], answer: Answer) -> None:
        _only(arguments)

        def judged(_difference: Any, problem: str | None) -> None:
            if problem is not None:
                answer(None, f"not restarted, for it would not start again: {problem}")
                return
            answer({"restarting": True}, None)
            manager.call_soon(restart)  # the answer leaves before

        reloader.plan(judged)

    return {
        "ping": ping,
        "status": status,
        "config": config,
        "read": read,
        "reload": reload,
        "set": set_output,
        "log-level": LogLevel(manager).request,
        "restart": restart_agent,
    }


class LogLevel:
    """The level of the log, changed for a time or until the agent starts anew."""

    def __init__(self, manager: EventManager) -> None:
        self._manager = manager
        self._before: str | None = None
        self._timer: TimerEvent | None = None
        self._log = logging.getLogger("outstation.requests")

    def request(self, arguments: dict[str, Any], answer: Answer) -> None:
        """``level``, and ``for`` how long: a duration as the configuration has it."""
        _only(arguments, "level", "for")
        level, given = arguments.get("level"), arguments.get("for")
        if level not in LEVELS:
            raise RequestError("arguments", f"level is one of {', '.join(LEVELS)}")
        seconds = None if given is None else _seconds("for", given)
        if seconds is not None and not 0 < seconds <= 86_400 * 7:
            raise RequestError("arguments", "for is more than nothing, and a week at most")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        before = set_level(level)
        if self._before is None:
            self._before = before
        self._log.info(line("log.level", level=level, before=before, for_s=seconds))
        if seconds is None:
            self._before = None
        else:
            self._timer = self._manager.create_timer_event(
                seconds, partial(self._back, self._before), repeat=False, name="log.level"
            )
        answer({"level": level, "before": before, "for_s": seconds}, None)

    def _back(self, level: str) -> None:
        self._timer = self._before = None
        self._log.info(line("log.level", level=level, before=set_level(level)))


def described(config: Config) -> dict[str, Any]:
    """The configuration that runs, secrets masked: sections with their defaults, devices as they are written."""
    sections = {name: masked_value(getattr(config, name).model_dump(mode="json"), (name,)) for name in SECTIONS}
    return {"files": list(config.files), **sections, "device": [masked(device.config) for device in config.devices]}


def _seconds(key: str, given: Any) -> float:
    """A duration as the configuration has it."""
    try:
        return duration(given)
    except ValueError as error:
        raise RequestError("arguments", f"{key}: {error}") from None


def _only(arguments: Mapping[str, Any], *known: str) -> None:
    if strange := [key for key in arguments if key not in known]:
        there = f"{', '.join(known)}, transaction, agent" if known else "transaction and agent alone"
        raise RequestError("arguments", f"unknown: {', '.join(strange[:4])[:100]}; there are {there}")
