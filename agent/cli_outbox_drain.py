"""`outstation outbox drain`: all that waits to a broker, by the agent's own link. Removed is what is acknowledged.

The loop works with the disk itself here: a commit a group is all that it would otherwise hand to a thread, and nothing
but this waits for it.
"""

from __future__ import annotations

import logging
import secrets
import signal
import sqlite3
from collections import deque
from pathlib import Path
from typing import Any

import click

from agent.cli_broker import EX_UNAVAILABLE, broker_settings, in_options
from agent.cli_outbox_file import EX_DATAERR, Failure, Outbox, Progress
from agent.codec import Codec, Topics
from agent.codec_formats import lacks, make_codec
from agent.codec_values import ValuesCodec
from agent.errors import LinkError
from agent.events import EventManager
from agent.model import Reading
from agent.mqtt import Link
from agent.mqtt_settings import MqttSettings
from agent.outbox_store import Contents, Store

AHEAD = 1000
"""Readings read from the file at once."""
GROUP = 1000
"""Acknowledged readings that are removed in one commit. More may come twice if we are killed."""
FAREWELL = 2.0
"""Seconds for what is in flight when we are told to stop, and for DISCONNECT."""

Message = list[Reading]


def main(
    path: Path | None,
    config_file: str,
    *,
    url: str,
    agent: str | None,
    base: str | None,
    batch: int,
    form: str | None,
    qos: int,
    client_id: str | None,
    version: str,
    **broker: Any,
) -> int:
    """Send all that waits; the exit status. Raises Failure, click.UsageError."""
    outbox = Outbox(path, config_file)
    template = None
    if base is None and outbox.config is not None:
        template = outbox.config.mqtt.topic
        base = outbox.config.mqtt.base
    if form is None and outbox.config is not None:
        form = outbox.config.mqtt.format
    if template is not None and "{channel}" in template:
        template = None  # of single values, and readings go out whole
    form = form or "json"
    if form == "values":
        raise click.UsageError("bare values would not say of when they are; choose another --format")
    if missing := lacks(form):
        raise click.UsageError(f"--format {form}: {missing}; pip install 'outstation[{form}]'")
    client_id = client_id or f"outstation-drain-{secrets.token_hex(4)}"
    wanted = {"base": base, "batch": batch, "qos": qos, "client_id": client_id, "version": version, "format": form}
    settings = broker_settings(url, **wanted, **broker)
    with outbox.store() as (store, contents):
        agent = agent or contents.agent
        if agent is None:
            raise Failure(f"{outbox.path} does not say whose it is; say --agent ID", EX_DATAERR)
        count = contents.count
        if count is None:
            count = store.count(0, contents.last, contents.last)[0] if contents.last else 0
        topics = Topics(agent, settings.base, template)
        codec = make_codec(form, agent, topics, outbox.channels)
        assert not isinstance(codec, ValuesCodec), "refused above"
        drain = Drain(outbox, store, contents, settings, topics, codec)
        with Progress(count, "sending") as progress:
            drain.run(progress)
        if contents.last and not store.fetch(0, contents.last, 1):
            store.give_back()
    return drain.report(count)


class Drain:
    """One run: from the file to the link, and off the file by what the link says."""

    def __init__(
        self, outbox: Outbox, store: Store, contents: Contents, settings: MqttSettings, topics: Topics, codec: Codec
    ) -> None:
        self._outbox = outbox
        self._store = store
        self._upto = contents.last
        self._settings = settings
        self._topics = topics
        self._codec = codec
        self._manager = EventManager(slow_after=1.0, on_callback_error=self._callback_failed)
        self._link: Link
        self._progress: Progress
        self._after = 0  # the last row that was read
        self._waiting: deque[Message] = deque()
        self._flying: dict[int, Message] = {}  # by id(): in the order in which they were sent
        self._acknowledged: list[int] = []
        self._pumping = False
        self._stopping = False
        self._was_up = False
        self._sent = 0
        self._kept = 0
        self._why_kept = ""
        self._failure: BaseException | None = None

    def run(self, progress: Progress) -> None:
        """Until nothing is left, or a signal. Raises Failure if there is no broker."""
        self._progress = progress
        settings = self._settings
        with self._manager as manager:
            log = logging.Logger("outstation.drain", logging.INFO)
            log.addHandler(_Told(self._tell))
            self._link = link = Link(manager, settings, client_id=str(settings.client_id), log=log)
            link.on_up = self._up
            link.on_down = self._down
            link.on_ack = self._acked
            link.on_refused = self._refused
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                manager.create_signal_event(number, self._signal, name=f"signal.{number.name}")
            link.start()
            try:
                manager.loop()
            finally:
                self._remove()
        if self._failure is not None:
            raise self._failure

    def report(self, count: int) -> int:
        """Say what has become of it; the exit status."""
        left = count - self._sent
        click.echo(f"sent {self._sent}" + (f"; {left} left in {self._outbox.path}" if left > 0 else ""))
        if self._kept:
            click.echo(f"{self._kept} not taken: {self._why_kept}")
        return 1 if left > 0 else 0

    # -- out --------------------------------------------------------------------------------------------------------

    def _up(self) -> None:
        self._was_up = True
        self._link.hurry()
        self._pump()

    def _pump(self) -> None:
        """Send what there is room for; end when nothing is left."""
        if self._pumping or self._stopping:
            return
        self._pumping = True
        link = self._link
        link.cork()
        while link.room > 0 and (self._waiting or self._read()):
            message = self._waiting.popleft()
            if not self._send(message):
                break
        self._pumping = False
        link.uncork()
        if not self._waiting and not self._flying and not self._read():
            self._stop()

    def _send(self, message: Message) -> bool:
        """Whether to go on: sent, halved or set aside."""
        topic = self._topics.telemetry(message[0].device)
        clock = self._outbox.clock
        payload = self._codec.encode(message, clock, clock.mono_ns(), self._settings.batch != 1)
        if not self._link.fits(topic, len(payload)):
            if len(message) > 1:
                half = len(message) // 2
                self._waiting.extendleft((message[half:], message[:half]))
            else:
                self._keep(message, f"{topic} of {len(payload)} bytes is more than this broker takes")
            return True
        self._flying[id(message)] = message
        if self._link.publish(topic, payload, qos=self._settings.qos, token=message):
            return True
        self._flying.pop(id(message), None)
        self._waiting.appendleft(message)
        return False

    def _read(self) -> bool:
        """More from the file, each device's readings put together. Whether there was any."""
        readings = self._store.fetch(self._after, self._upto, AHEAD) if self._after < self._upto else []
        if not readings:
            self._after = self._upto
            return False
        self._after = readings[-1].row
        filling: dict[str, Message] = {}
        for reading in readings:
            message = filling.get(reading.device)
            if message is None or len(message) >= int(self._settings.batch):
                message = filling[reading.device] = []
                self._waiting.append(message)
            message.append(reading)
        return True

    # -- and back ---------------------------------------------------------------------------------------------------

    def _acked(self, messages: list[Message]) -> None:
        for message in messages:
            if self._flying.pop(id(message), None) is not None:
                self._acknowledged += [reading.row for reading in message]
        if len(self._acknowledged) >= GROUP or not self._flying:
            self._remove()
        if self._stopping and not self._flying:
            self._leave()
        self._pump()

    def _refused(self, message: Message, _topic: str, error: LinkError) -> None:
        if self._flying.pop(id(message), None) is not None:
            self._keep(message, in_options(str(error)))
        self._pump()

    def _keep(self, message: Message, why: str) -> None:
        """The broker does not take it: it stays in the file."""
        self._kept += len(message)
        self._why_kept = self._why_kept or why

    def _remove(self) -> None:
        """Take what is acknowledged off the file, in one commit."""
        rows, self._acknowledged = self._acknowledged, []
        if not rows:
            return
        self._store.begin()
        try:
            self._store.delete(rows)
            self._store.commit()
        except sqlite3.Error:
            self._store.rollback()
            raise
        self._sent += len(rows)
        self._progress.add(len(rows))

    def _down(self, _error: LinkError | None) -> None:
        """What is in flight may not have arrived: it goes first on the next connection, in its order."""
        self._waiting.extendleft(reversed(self._flying.values()))
        self._flying.clear()
        if self._stopping:
            self._manager.terminate()

    # -- ends -------------------------------------------------------------------------------------------------------

    def _tell(self, text: str) -> None:
        """What the link logs. Of an attempt that has failed it tells in no other way."""
        stats = self._link.stats()
        if not self._was_up and stats.last_error is not None and stats.failures >= len(self._settings.urls):
            self._failure = Failure(in_options(str(stats.last_error)), EX_UNAVAILABLE)
            self._manager.terminate()
        else:
            self._progress.say(in_options(text))

    def _signal(self, _number: int) -> None:
        if self._stopping or not self._flying:
            self._manager.terminate()
            return
        self._stopping = True
        self._waiting.clear()
        self._manager.create_timer_event(FAREWELL, self._leave, repeat=False, name="drain.farewell")

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._leave()

    def _leave(self) -> None:
        self._link.stop(self._manager.terminate, timeout=FAREWELL)

    def _callback_failed(self, event: Any, error: BaseException) -> None:
        """A full disk, or a defect: ``Outbox`` tells the one from the other."""
        error.add_note(f"in {event.name}")
        self._failure = error
        self._manager.terminate()


class _Told(logging.Handler):
    """Hands lines of a log to a function."""

    def __init__(self, tell: Any) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            self._tell(record.getMessage())
