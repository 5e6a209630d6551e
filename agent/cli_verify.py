"""``outstation verify``: a subscriber that proves delivery, by the numbers of the readings and nothing the agent says.

Messages are judged on the subscriber's own thread, as they come, so that none waits in a queue of ours: a broker that
is faster than we are is held back by TCP. The event loop here only shows, and ends.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import ssl
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from agent.cli_verify_seen import Connection, Seen
from agent.cli_verify_view import Facts, JsonView, LiveView, PlainView, View
from agent.clock import Clock
from agent.codec_template import Template
from agent.demo_view import Keys
from agent.errors import LinkError
from agent.events import EventManager
from agent.mqtt_connect import read_password, tls_context
from agent.mqtt_errors import from_code, from_connecting, from_name, from_tls
from agent.mqtt_settings import BrokerUrl, MqttSettings
from agent.tally import Tally
from agent.testing.subscriber import Message, Subscriber

Show = Literal["live", "plain", "json"]

REFRESH = {"live": 0.25, "plain": 1.0, "json": 1.0}
"""Seconds between two looks."""
CONNECT = 10.0
"""Seconds for a broker to answer."""
VIEWS: dict[Show, type[LiveView] | type[PlainView] | type[JsonView]] = {
    "live": LiveView,
    "plain": PlainView,
    "json": JsonView,
}


@dataclass(frozen=True, slots=True)
class Options:
    """What to listen to, and how to show it. seconds: None until Ctrl-C; every: seconds between lines of totals."""

    settings: MqttSettings
    base: str
    agent: str | None
    client_id: str | None
    seconds: float | None
    every: float
    show: Show
    template: Template | None = None
    """Where readings go, if not where the rest is (``mqtt.topic``)."""
    own: str = ""
    """The agent of the configuration: whose readings they are if the template does not say."""

    @property
    def filters(self) -> tuple[str, ...]:
        root = f"{self.base}/{self.agent or '+'}"
        return self._readings(root), f"{root}/availability", f"{root}/+/availability"

    def _readings(self, root: str) -> str:
        if self.template is None:
            return f"{root}/+/telemetry"
        one = self.template if self.agent is None else Template(self.template.fill_agent(self.agent))
        return one.filter()

    def tells_state(self, topic: str) -> bool:
        """Whether it is the availability of an agent or a device, as far as its topic says."""
        levels = topic.removeprefix(f"{self.base}/").split("/")
        return (
            topic.startswith(f"{self.base}/")
            and levels[-1] == "availability"
            and len(levels) in (2, 3)
            and (self.template is None or self.template.read(topic) is None)
        )


class Verification:
    """One run, from the connection to the verdict."""

    def __init__(self, options: Options, clock: Clock, seen: Seen | None = None) -> None:
        self._options = options
        self._clock = clock
        self._manager = EventManager(slow_after=1.0, on_callback_error=self._callback_failed)
        if seen is None:
            tally = Tally(options.base, template=options.template, agent=options.agent or options.own)
            seen = Seen(tally, Connection(options.client_id is not None))
        self._seen = seen
        self._subscriber: Subscriber | None = None
        self._url: BrokerUrl
        self._view: View
        self._keys = Keys(self._key)
        self._failure: BaseException | None = None

    def run(self) -> int:
        """Until the time is over or a signal comes; the exit status. Raises LinkError if there is no broker."""
        manager = self._manager
        with manager:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                manager.create_signal_event(number, self._end, name=f"signal.{number.name}")
            manager.execute_work(
                self._connect, on_done=self._listening, on_error=self._not_listening, name="verify.connect"
            )
            try:
                manager.loop()
                status = self._finish()
            finally:
                self._keys.stop()
                if self._subscriber is not None:
                    self._subscriber.close()
                    self._forget()
        if self._failure is not None:
            raise self._failure
        return status

    def _finish(self) -> int:
        if self._subscriber is None:  # interrupted, or failed, before there was anything to see
            return self._seen.status()
        with self._subscriber.held():
            try:
                self._view.end()
            except OSError as error:
                self._gone(error)
            return self._seen.status()

    # -- the broker -------------------------------------------------------------------------------------------------

    def _connect(self) -> Subscriber:
        """On a worker: it blocks. The first broker that takes us, in the order of the configuration."""
        failure: LinkError | None = None
        for url in self._options.settings.brokers():
            try:
                subscriber = self._made(
                    url,
                    persistent=self._options.client_id is not None,
                    on_message=self._message,
                    on_up=self._up,
                    on_down=self._down,
                )
                return self._started(subscriber, url)
            except LinkError as error:
                failure = failure or error
        assert failure is not None, "settings name at least one broker"
        raise failure

    def _made(self, url: BrokerUrl, **options: Any) -> Subscriber:
        settings = self._options.settings
        password = read_password(settings, [])
        return Subscriber(
            str(url),
            *self._options.filters,
            username=settings.username,
            password=None if password is None else password.decode("utf-8", "surrogateescape"),
            tls=tls_context(settings) if url.tls else None,
            client_id=self._options.client_id,
            keep=False,
            **options,
        )

    def _started(self, subscriber: Subscriber, url: BrokerUrl) -> Subscriber:
        self._url = url
        try:
            return subscriber.start(CONNECT)
        except (ConnectionError, TimeoutError) as error:
            raise self._explained(error, subscriber.refusal_code) from None

    def _explained(self, error: OSError, code: int | None) -> LinkError:
        """What went wrong, and what to do, in the words of the agent's own link."""
        url, settings, cause = self._url, self._options.settings, error.__cause__
        if code is not None:
            return from_code(code, str(error), url, settings, self._options.client_id or "")
        if isinstance(cause, socket.gaierror):
            return from_name(cause, url)
        if isinstance(cause, ssl.SSLError) or (url.tls and isinstance(cause, ConnectionResetError)):
            return from_tls(cause, url, CONNECT)
        if isinstance(cause, OSError):
            return from_connecting(cause, url, CONNECT)
        return LinkError("refused", str(error), "check user, password, certificate and the broker's access list")

    def _forget(self) -> None:
        """End the session that the broker keeps for us, or it goes on queueing for nobody."""
        if self._options.client_id is not None:
            with suppress(LinkError):
                self._started(self._made(self._url, persistent=False), self._url).close()

    # -- on the subscriber's thread, never while the view looks ------------------------------------------------------

    def _message(self, message: Message) -> None:
        if self._options.tells_state(message.topic):
            levels = message.topic.removeprefix(f"{self._options.base}/").split("/")
            self._seen.state(levels[0], levels[1] if len(levels) == 3 else "", message.payload)
        else:
            self._seen.tally.add(
                message.topic, message.payload, at=message.at, dup=message.dup, retained=message.retain
            )

    def _up(self, kept: bool) -> None:
        if self._seen.connection.accepted(kept):
            self._seen.tally.interrupt()

    def _down(self, reason: str) -> None:
        self._seen.connection.lost("it broke" if reason == "Unspecified error" else reason.lower())

    # -- on the loop ------------------------------------------------------------------------------------------------

    def _listening(self, subscriber: Subscriber) -> None:
        options, manager = self._options, self._manager
        session = f"session {options.client_id}" if options.client_id else "no session"
        facts = Facts(f"{self._url} ({session})", options.filters[0], options.every)
        self._view = self._make_view(facts)
        self._subscriber = subscriber
        self._view.start()
        manager.create_timer_event(REFRESH[options.show], self._refresh, name="verify.refresh")
        if options.seconds is not None:
            manager.create_timer_event(options.seconds, manager.terminate, repeat=False, name="verify.over")
        if options.show == "live" and self._keys.start():
            manager.create_socket_event(self._keys, on_readable=self._keys.read, name="verify.keys")

    def _make_view(self, facts: Facts) -> View:
        return VIEWS[self._options.show](facts, self._seen, self._clock)

    def _not_listening(self, error: BaseException) -> None:
        self._failure = error
        self._manager.terminate()

    def _refresh(self) -> None:
        assert self._subscriber is not None
        with self._subscriber.held():
            self._view.look()
        self._view.show()

    def _key(self, key: str) -> None:
        if key in ("q", "Q"):
            self._manager.terminate()

    def _end(self, _number: int) -> None:
        self._manager.terminate()

    def _callback_failed(self, event: Any, error: BaseException) -> None:
        """Whoever watched has gone (``| head``, a lost terminal): an end like any other. All else is a defect."""
        if isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.EIO):
            self._gone(error)
        else:
            error.add_note(f"in {event.name}")
            self._failure = error
        self._manager.terminate()

    def _gone(self, error: OSError) -> None:
        """Nobody reads us any more; what is still buffered would fail once more when the interpreter flushes it."""
        if error.errno not in (errno.EPIPE, errno.EIO):
            raise error
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def main(options: Options) -> int:
    """Listen, show and judge; the exit status. Raises LinkError if no broker takes us."""
    return Verification(options, Clock()).run()
