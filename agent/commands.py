"""Commands from the broker to the devices' outputs, and the answer to each.

``outstation/<agent>/<device>/<channel>/set`` goes to the device's driver, checked against what the driver declares.
Every command is answered at ``outstation/<agent>/response/set``, also one that is refused, with why. A retained one is
always refused: the broker gives it again at each connection, and a relay would click with the network.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol, TypeAlias

import orjson

from agent.codec import Topics, channel_topic
from agent.driver import Done
from agent.logline import Repeats, line
from agent.model import Value
from agent.outputs import Command, CommandError, Output, parse_command

Told: TypeAlias = Callable[[dict[str, Any], str | None], object]


class OutputDevice(Protocol):
    """What is asked of a device: ``device.Device``."""

    @property
    def outputs(self) -> Any: ...

    def set(self, output: str, value: Value, done: Done) -> None: ...


class Commands:
    """Takes each message that the link brings. All of it runs on the loop's thread.

    subscribe: of the link; answer: publishes (topic, payload) once.
    """

    def __init__(
        self,
        topics: Topics,
        devices: Mapping[str, OutputDevice],
        *,
        subscribe: Callable[[str], object],
        answer: Callable[[str, bytes], object],
        log: logging.Logger | None = None,
    ) -> None:
        self.done = 0
        """Commands that were carried out."""
        self.refused = 0
        self._topics = topics
        self._devices = devices
        self._subscribe = subscribe
        self._answer = answer
        self._log = log or logging.getLogger("outstation.commands")
        self._listening: set[str] = set()
        self._repeats = Repeats()

    def listen(self, device: str) -> None:
        """Subscribe to a device's commands, once, and only if it has outputs: nobody else's radio wakes for nothing."""
        if device not in self._listening and self._devices[device].outputs:
            self._listening.add(device)
            self._subscribe(self._topics.sets(device))

    def message(self, topic: str, payload: bytes, retained: bool) -> None:
        """One message from the broker. What is not a command's topic is passed over."""
        root, _, rest = topic.rpartition(f"{self._topics.root}/")
        levels = rest.split("/")
        if root or len(levels) != 3 or levels[2] != "set":
            return
        name, channel = levels[:2]
        try:
            command = parse_command(payload)
        except CommandError as error:
            self._refuse(name, channel, str(error), partial(self._send, error.transaction))
            return
        if retained:
            reason = "retained commands are refused, as they would come again with each connection; publish it without"
            self._refuse(name, channel, reason, partial(self._send, command.transaction))
            return
        self.carry_out(name, channel, command, partial(self._send, command.transaction))

    def carry_out(self, name: str, channel: str, command: Command, answer: Told) -> None:
        """Have an output set; answer gets device, channel and value, and None or why it is not set."""
        try:
            device, output = self._find(name, channel)
            value = output.checked(command.value, command.text)
        except ValueError as error:
            self._refuse(name, channel, str(error), answer)
            return

        def done(problem: str | None = None) -> None:
            if problem is None:
                self._carried_out(name, output.name, value, answer)
            else:
                self._refuse(name, output.name, problem, answer)

        device.set(output.name, value, done)

    def report(self) -> dict[str, int]:
        """Its part of the status report."""
        return {"done": self.done, "refused": self.refused}

    def _find(self, name: str, channel: str) -> tuple[OutputDevice, Output]:
        device = self._devices.get(name)
        if device is None:
            raise ValueError(f"there is no device {name}")
        for output in device.outputs:
            if channel_topic(output.name) == channel:
                return device, output
        known = ", ".join(output.name for output in device.outputs)
        raise ValueError(f"{channel} is no output of {name}; {'its outputs: ' + known if known else 'it has none'}")

    def _carried_out(self, device: str, channel: str, value: Value, answer: Told) -> None:
        self.done += 1
        self._log.info(line("output.set", device=device, channel=channel, value=orjson.dumps(value).decode()))
        answer({"device": device, "channel": channel, "value": value}, None)

    def _refuse(self, device: str, channel: str, reason: str, answer: Told) -> None:
        self.refused += 1
        if times := self._repeats((device, channel, reason)):
            self._log.warning(
                line(
                    "output.refused", device=device, channel=channel, reason=reason, times=times if times > 1 else None
                )
            )
        answer({"device": device, "channel": channel}, reason)

    def _send(self, transaction: object, data: dict[str, Any], problem: str | None) -> None:
        answer: dict[str, Any] = {"status": "ok"} if problem is None else {"status": "error", "error": problem}
        answer["data"] = data
        if transaction is not None:
            answer["transaction"] = transaction
        self._answer(self._topics.response("set"), orjson.dumps(answer))
