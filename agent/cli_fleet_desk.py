"""The operator's place at the broker: what boards say of themselves, and the documents that lie there for them."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import orjson

from agent.codec import ONLINE
from agent.errors import FleetError, LinkError
from agent.events import EventManager
from agent.fleet_document import Document, Target, target_of, verify
from agent.mqtt import Link
from agent.mqtt_message import Message
from agent.mqtt_settings import MqttSettings

QUIET = 0.5
"""Seconds without a message after which all that was retained has come: MQTT has no mark for its end."""
PATIENCE = 10.0
"""Seconds for the retained messages of all boards, and for an acknowledgement."""


class Desk:
    """One connection, while a command runs; ``until`` lets it work. Raises LinkError where no broker takes us."""

    def __init__(self, settings: MqttSettings, base: str) -> None:
        self.base = base
        self.online: dict[str, bool] = {}
        """Agents by id: whether they are there."""
        self.reports: dict[str, dict[str, Any]] = {}
        """What each agent with ``fleet.enabled`` says (docs/fleet.md)."""
        self.devices: dict[str, dict[str, bool]] = {}
        """Devices of each agent: whether they are online."""
        self.documents: dict[Target, bytes] = {}
        """The retained message of each target."""
        quiet = logging.getLogger("outstation.fleet.desk")
        quiet.propagate = False  # a command says by itself what has become of its connection
        self._failure: BaseException | None = None
        self._manager = EventManager(on_callback_error=self._failed)
        # A name of its own: the configuration's may be that of the agent on this machine.
        settings = settings.model_copy(update={"client_id": None})
        self._brokers = len(settings.urls)
        self._link = Link(self._manager, settings, client_id=f"outstation-fleet-{secrets.token_hex(4)}", log=quiet)
        self._link.on_message = self._message
        self._link.on_ack = self._acked
        self._link.on_refused = lambda token, _topic, error: self._refused(token, error)
        self._unacked: set[object] = set()
        self._last = 0.0

    def __enter__(self) -> Self:
        for topic in ("+/availability", "+/fleet", "+/+/availability", "fleet/group/+", "fleet/agent/+"):
            self._link.subscribe(f"{self.base}/{topic}")
        try:
            self._link.start()
            self.until(lambda: self._link.up or self._link.stats().failures >= self._brokers, None)
            if not self._link.up:
                error = self._link.stats().last_error
                assert error is not None
                raise error
            end = self._manager.now() + PATIENCE
            self._last = self._manager.now()
            while (left := min(self._last + QUIET, end) - self._manager.now()) > 0:
                self._manager.run_once(left)
        except BaseException:
            self._manager.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stopped: list[bool] = []
        self._link.stop(lambda: stopped.append(True))
        while not stopped:
            self._manager.run_once(0.1)
        self._manager.close()

    def until(self, condition: Callable[[], object], timeout: float | None) -> bool:
        """Work until it holds, at most so many seconds; whether it does."""
        end = None if timeout is None else self._manager.now() + timeout
        while not condition():
            left = 1.0 if end is None else end - self._manager.now()
            if left <= 0:
                return False
            self._manager.run_once(min(left, 1.0))
            if self._failure is not None:
                raise self._failure
        return True

    def publish(self, target: Target, message: bytes) -> None:
        """Put a document there, and wait for the broker's word. Raises LinkError."""
        token = object()
        self._unacked.add(token)
        deadline = self._manager.now() + PATIENCE
        topic = target.topic(self.base)
        sent = False
        while not sent:
            self.until(lambda: self._link.up, deadline - self._manager.now())
            self._link.cork()
            sent = self._link.publish(topic, message, qos=1, retain=True, token=token)
            self._link.uncork()
            if not sent and self._manager.now() >= deadline:
                raise LinkError("lost", "the connection is away", "look at the broker, and say it again")
        # A broker that does not let us write says so by MQTT 5 alone; else the document does not come back to us.
        if not self.until(lambda: token not in self._unacked and self.documents.get(target) == message, PATIENCE):
            raise LinkError(
                "not_authorized", f"{topic} does not come back from the broker", "see its ACL: docs/fleet.md"
            )

    def document(self, target: Target, keys: dict[str, bytes]) -> Document | None:
        """What lies there for a target, if it is signed by one of the keys; None: nothing. Raises FleetError."""
        message = self.documents.get(target)
        if message is None:
            return None
        found = verify(message, keys)
        if found.target != target:
            raise FleetError("target", f"the document at {target} is one for {found.target}")
        return found

    def members(self, target: Target) -> list[str]:
        """Agents that take documents for this target."""
        if target.kind == "agent":
            return [target.name] if target.name in self.reports else []
        return sorted(agent for agent, report in self.reports.items() if target.name in report["groups"])

    def _message(self, message: Message) -> None:
        topic, payload = message.topic, message.payload
        self._last = self._manager.now()
        if (target := target_of(self.base, topic)) is not None:
            self.documents.pop(target, None)
            if payload:
                self.documents[target] = payload
            return
        levels = topic.removeprefix(f"{self.base}/").split("/")
        match levels:
            case [agent, "availability"]:
                self._set(self.online, agent, payload)
            case [agent, device, "availability"]:
                self._set(self.devices.setdefault(agent, {}), device, payload)
            case [agent, "fleet"]:
                self.reports.pop(agent, None)
                if (report := _report(payload)) is not None:
                    self.reports[agent] = report

    def _set(self, states: dict[str, bool], name: str, payload: bytes) -> None:
        states.pop(name, None)
        if payload:
            states[name] = payload == ONLINE

    def _acked(self, tokens: list[Any]) -> None:
        self._unacked.difference_update(tokens)

    def _refused(self, token: object, error: LinkError) -> None:
        if token in self._unacked:
            self._failure = error

    def _failed(self, _event: object, error: BaseException) -> None:
        self._failure = error


def _report(payload: bytes) -> dict[str, Any] | None:
    """A board's report, if it is one: whoever may write below a board's name may write anything."""
    try:
        report = orjson.loads(payload)
        well = (
            all(isinstance(group, str) for group in report["groups"])
            and all(isinstance(item["state"], str) for item in report["documents"].values())
            and all(isinstance(item["digest"], str) for item in report["layers"].values())
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return report if well else None
