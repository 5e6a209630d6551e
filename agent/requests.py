"""Requests over MQTT: ``outstation/<agent>/request/<op>`` -> ``outstation/<agent>/response/<op>`` (docs/requests.md).

Each is answered once, ``{"status": "ok"|"error", "data": ..., "error": ..., "transaction": ...}``, at the MQTT 5
response topic where it names one. What costs little is judged first, so that a flood of requests costs readings little.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol, TypeAlias

import orjson

from agent.codec import Topics
from agent.control import Answer
from agent.logline import Repeats, line
from agent.mqtt_message import BARE, Message, correlated
from agent.requests_memory import ASKERS, Asked, Asker, Bucket, Memory
from agent.requests_settings import RequestSettings

LONGEST = 4096
"""Bytes of a request."""
LONGEST_OP = 64
OPEN = 32
"""Requests under way at a time; more are refused."""
REFUSALS = 5.0
"""Answers a second to requests over the rate: whoever has asked by mistake learns why, whoever floods gets no echo."""
LONGEST_TOPIC = 256
"""Bytes of a response topic."""
LONGEST_CORRELATION = 256
"""Bytes of correlation data: four times the UUIDs that programs use. Of a transaction, as JSON, too."""

Operation: TypeAlias = Callable[[dict[str, Any], Answer], object]
"""Takes a request's arguments. Raises RequestError where they are wrong; else calls the answer once, now or later."""

_QUIET = ("ping", "status", "config", "read")  # they change nothing: no line in the log for each


class RequestError(ValueError):
    """A request that is refused. Caught by ``Requests``, which answers with its text. kind: one word for the log."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Now(Protocol):
    """What is asked of the event manager."""

    def now(self) -> float: ...


class Requests:
    """Judges each request, has it carried out, and answers. All of it runs on the loop's thread.

    subscribe, fits: of the link; answer: publishes (topic, payload, MQTT 5 properties) once.
    """

    def __init__(
        self,
        agent: str,
        topics: Topics,
        manager: Now,
        settings: RequestSettings,
        operations: Mapping[str, Operation],
        *,
        subscribe: Callable[[str], object],
        fits: Callable[[str, int], bool],
        answer: Callable[[str, bytes, bytes], object],
        log: logging.Logger | None = None,
    ) -> None:
        self._agent = agent
        self._topics = topics
        self._prefix = topics.request_filter.removesuffix("+")
        base = topics.root.removesuffix(f"/{agent}")
        self._ours = re.compile(rf"{re.escape(base)}/(?![^/]+/response/)")
        self._manager = manager
        self._settings = settings
        self._operations = operations
        self._subscribe = subscribe
        self._fits = fits
        self._answer = answer
        self._log = log or logging.getLogger("outstation.requests")
        self._allowed = Bucket(settings.rate, max(1.0, settings.rate * 2))
        self._refusals = Bucket(REFUSALS, REFUSALS)
        self._memory = Memory()
        self._repeats = Repeats()
        self._counts = {"done": 0, "refused": 0, "limited": 0, "repeated": 0, "open": 0}

    def start(self) -> None:
        """Before the first connection."""
        self._subscribe(self._topics.request_filter)

    def report(self) -> dict[str, int]:
        """Its part of the status report."""
        return dict(self._counts)

    def message(self, message: Message) -> None:
        """One message from the broker. What is not a request's topic is passed over."""
        if not message.topic.startswith(self._prefix):
            return
        op = message.topic.removeprefix(self._prefix)
        now = self._manager.now()
        if not self._allowed.take(now):
            self._over_rate(op, message, now)
            return
        asker, transaction = self._asker(op), None
        try:
            asker = Asker(asker.topic, _correlation(message.correlation))
            if message.response_topic is not None:
                asker = asker._replace(topic=self._response_topic(message.response_topic))
            if message.retained:
                # The broker gives it again at each connection: the agent would restart for ever.
                raise RequestError("retained", "retained requests are refused: they come again with each connection")
            if message.expiry == 0:
                raise RequestError("expired", "it came after its message expiry interval")
            arguments = _parsed(message.payload)
            transaction = _transaction(arguments)
            self._carry_out(op, transaction, arguments, asker, now)
        except RequestError as error:
            self._refuse(op, error, asker, transaction)

    def _carry_out(self, op: str, transaction: Any, arguments: dict[str, Any], asker: Asker, now: float) -> None:
        if arguments.pop("agent", self._agent) != self._agent:
            raise RequestError("agent", f"it is for another agent; this one is {self._agent}")
        operation = self._operation(op)
        key = None if transaction is None else (op, orjson.dumps(transaction).decode())
        asked = self._memory.find(key, now) if key is not None else None
        if asked is not None:
            self._repeat(asked, arguments, asker)
            return
        if self._counts["open"] >= OPEN:
            raise RequestError("busy", f"{OPEN} requests are under way; ask again when one is answered")
        asked = Asked(dict(arguments), {asker: None})
        self._counts["open"] += 1
        if key is not None:
            self._memory.add(key, asked)
        try:
            operation(arguments, partial(self._done, op, transaction, asked))
        except RequestError as error:
            self._done(op, transaction, asked, None, str(error))

    def _operation(self, op: str) -> Operation:
        operation = self._operations.get(op)
        enabled = ", ".join(self._settings.enable)
        if operation is None:
            raise RequestError("unknown", f"there is no such request; enabled here: {enabled}")
        if op not in self._settings.enable:
            raise RequestError("off", f"{op} is not enabled here (requests.enable); enabled: {enabled}")
        return operation

    def _repeat(self, asked: Asked, arguments: dict[str, Any], asker: Asker) -> None:
        if asked.arguments != arguments:
            raise RequestError("transaction", "this transaction was used for another request; use a new one")
        self._counts["repeated"] += 1
        if asked.payload is not None:
            self._send(asker, asked.payload)
        elif len(asked.askers) < ASKERS:
            asked.askers[asker] = None

    # -- answering ----------------------------------------------------------------------------------------------------

    def _done(self, op: str, transaction: Any, asked: Asked, data: Any, problem: str | None) -> None:
        if asked.payload is not None:
            return
        self._counts["open"] -= 1
        asked.payload, asked.at = _answer(data, problem, transaction), self._manager.now()
        if problem is None:
            self._counts["done"] += 1
            if op not in _QUIET:
                self._log.info(line("request.done", op=op, transaction=transaction))
        else:
            self._count_refused(op, "failed", problem)
        for asker in asked.askers:
            self._send(asker, asked.payload, transaction)

    def _send(self, asker: Asker, payload: bytes, transaction: Any = None) -> None:
        size = len(payload) + len(asker.properties)
        if not self._fits(asker.topic, size):
            why = f"the answer has {size} bytes, more than the broker takes (mqtt.max_packet)"
            payload = _answer(None, why, transaction)
        self._answer(asker.topic, payload, asker.properties)

    def _refuse(self, op: str, error: RequestError, asker: Asker, transaction: Any) -> None:
        self._count_refused(op, error.kind, str(error))
        self._send(asker, _answer(None, str(error), transaction))

    def _count_refused(self, op: str, kind: str, reason: str) -> None:
        self._counts["refused"] += 1
        known = op if op in self._operations else "?"  # others are what anybody may write
        if times := self._repeats((known, kind)):
            self._log.warning(
                line("request.refused", op=known, kind=kind, reason=reason, times=times if times > 1 else None)
            )

    def _over_rate(self, op: str, message: Message, now: float) -> None:
        self._counts["limited"] += 1
        if times := self._repeats("rate"):
            self._log.warning(line("request.limited", rate=self._settings.rate, times=times if times > 1 else None))
        if message.retained or not self._refusals.take(now):
            return
        asker, transaction = self._asker(op), None
        reason = f"more than {self._settings.rate:g} requests a second (requests.rate); ask again later"
        try:
            asker = Asker(asker.topic, _correlation(message.correlation))
            if message.response_topic is not None:
                asker = asker._replace(topic=self._response_topic(message.response_topic))
            transaction = _transaction(_parsed(message.payload))
        except RequestError:
            pass  # it may be wrong as well, and is refused in any case
        self._send(asker, _answer(None, reason, transaction))

    def _asker(self, op: str) -> Asker:
        """Who says nothing of the answer; an op that can be none of ours is not repeated at any length."""
        return Asker(self._topics.response(op if len(op) <= LONGEST_OP else "unknown"), BARE)

    def _response_topic(self, topic: str) -> str:
        """Checked: an answer must switch nothing, and look like nothing that an agent says of itself."""
        if not topic or len(topic.encode()) > LONGEST_TOPIC or re.search(r"[+#\x00-\x1f\x7f]", topic):
            raise RequestError("response_topic", "the response topic is empty, too long, or has wildcards")
        if topic.startswith("$") or self._ours.match(topic):
            raise RequestError(
                "response_topic", "the response topic is the broker's or an agent's own; below an agent response/ alone"
            )
        return topic


def _correlation(data: bytes | None) -> bytes:
    if data is not None and len(data) > LONGEST_CORRELATION:
        raise RequestError("correlation", f"correlation data has at most {LONGEST_CORRELATION} bytes")
    return correlated(data)


def _parsed(payload: bytes) -> dict[str, Any]:
    if not payload:
        # Who clears a retained request sends an empty message (MQTT 3.1.1, section 3.3.1.3), which reaches us as well.
        raise RequestError("empty", "an empty message asks nothing; send {}")
    if len(payload) > LONGEST:
        raise RequestError("too_long", f"{len(payload)} bytes are too long; at most {LONGEST}")
    try:
        table = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise RequestError("json", f"not JSON: {error}") from None
    if not isinstance(table, dict):
        raise RequestError("json", 'an object is due, as {"transaction": "a1"}')
    return table


def _transaction(arguments: dict[str, Any]) -> Any:
    """Taken out of the arguments. None: it has none."""
    transaction = arguments.pop("transaction", None)
    if not isinstance(transaction, str | int | float | None) or len(orjson.dumps(transaction)) > LONGEST_CORRELATION:
        raise RequestError("transaction", f"transaction is a string or a number of at most {LONGEST_CORRELATION} bytes")
    return transaction


def _answer(data: Any, problem: str | None, transaction: Any) -> bytes:
    said: dict[str, Any] = {"status": "ok"} if problem is None else {"status": "error", "error": problem}
    if data is not None:
        said["data"] = data
    if transaction is not None:
        said["transaction"] = transaction
    return orjson.dumps(said)
