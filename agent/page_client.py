"""One connection to the status page, on the event manager: what it may take of time and memory is bounded here."""

from __future__ import annotations

import contextlib
import socket
from typing import Protocol

from agent.events import EventManager
from agent.page_http import Conversation, Request, RequestError, Response, refusal

CHUNK = 16_384
"""Bytes of one read; twice the longest head, so that a request seldom needs two."""
REQUEST_SECONDS = 5.0
"""A request must be here, whole, so long after its connection or its first byte: who drips headers ("slow loris")
holds a place no longer."""
IDLE_SECONDS = 30.0
"""Between two requests."""
ANSWER_SECONDS = 15.0
"""Until an answer, or the latest part of a stream, is taken; then the other end counts as gone."""
LINGER_SECONDS = 1.0
LINGER_BYTES = 65_536
"""After a refusal: what still comes is read and thrown away, for a reset would take the refusal with it (RFC 9112,
section 9.6)."""


class Owner(Protocol):
    """Who serves the connection: page.Page."""

    def wants(self, client: Client) -> None:
        """Something came: call ``client.work()`` when it is its turn."""

    def respond(self, request: Request, client: Client) -> Response | None:
        """The answer; None: a stream begins, which ``client.stream`` was told of."""

    def ended(self, client: Client) -> None: ...


class Client:
    """Reads when its owner says so, answers one request after another, and never holds more than one answer."""

    def __init__(self, manager: EventManager, connection: socket.socket, peer: str, owner: Owner) -> None:
        self.peer = peer
        self.answered = False
        """Whether it ever had an answer."""
        self.since = manager.now()
        """When it began to wait for a request, by the manager's clock."""
        self.streaming = False
        self.log_seen = 0
        """The last line of the log that it was sent."""
        self._now = manager.now
        self._idle = False  # between two requests
        self._queued = False
        self._connection = connection
        self._owner = owner
        self._http = Conversation()
        self._out = memoryview(b"")
        self._last = False  # close when what is in _out is sent
        self._lingering = False
        self._extra = 0  # bytes that came while nothing was asked
        connection.setblocking(False)
        self._event = manager.create_socket_event(
            connection, on_readable=self._readable, on_writable=self._writable, name="page.client"
        )
        self._event.want_writable(False)
        self._timer = manager.create_timer_event(REQUEST_SECONDS, self._late, repeat=False, name="page.patience")

    def refuse(self, response: Response) -> None:
        """Answer before anything was asked, and end."""
        self._finish(response)

    @property
    def resting(self) -> bool:
        """Whether it is its turn to say something, and it has not: nothing that was asked is lost with it."""
        return not (self._queued or self.streaming or self._out or self._lingering)

    # -- its turn ---------------------------------------------------------------------------------------------------

    def work(self) -> None:
        """Read once, and answer one request if it is whole."""
        self._queued = False
        if not self._event.active:
            return
        self._event.resume()
        try:
            data = self._connection.recv(CHUNK)
        except BlockingIOError:
            data = None
        except OSError:
            self.close()
            return
        if data is not None:
            if self._idle and data:
                self._idle = False
                self._timer.reschedule(REQUEST_SECONDS)
            self._http.feed(data)
        try:
            request = self._http.request()
        except RequestError as bad:
            self._finish(bad.response)
            return
        if request is None:
            if data == b"":
                self.close()
            return
        response = self._owner.respond(request, self)
        if response is not None:
            self._last = response.close
            self._send(self._http.answer(response))

    def stream(self, response: Response) -> None:
        """Begin an answer without an end: its head and first part. Called from within ``respond``."""
        self.streaming = True
        self._send(self._http.begin(response))

    @property
    def ready(self) -> bool:
        """Whether a stream takes its next part: the last one is taken. Until then it is left out, and nothing waits."""
        return self.streaming and not self._out

    def push(self, data: bytes) -> None:
        """The next part of a stream that is ready."""
        self._send(self._http.part(data))

    # -- descriptor and timer ---------------------------------------------------------------------------------------

    def _readable(self) -> None:
        if not (self._lingering or self.streaming or self._out):
            self._queue()
            return
        try:
            data = self._connection.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._extra += len(data)
        if not data or self._extra > (LINGER_BYTES if self._lingering else CHUNK):
            self.close()
        elif not self._lingering and not self.streaming:
            self._http.feed(data)  # the next request, sent before this one's answer was taken

    def _queue(self) -> None:
        self._event.pause()
        self._queued = True
        self._owner.wants(self)

    def _send(self, data: bytes) -> None:
        if not self._out:
            self._timer.reschedule(ANSWER_SECONDS)
        self._out = memoryview(data)
        self._writable()

    def _writable(self) -> None:
        try:
            self._out = self._out[self._connection.send(self._out) :]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        self._event.want_writable(bool(self._out))
        if not self._out:
            self._sent()

    def _sent(self) -> None:
        if self.streaming:
            self._timer.reschedule(ANSWER_SECONDS)
        elif self._last or self._http.over:
            self._linger()
        elif self._http.begun:
            self._extra = 0
            self._timer.reschedule(REQUEST_SECONDS)
            self._queue()
        else:
            self.answered = self._idle = True
            self.since = self._now()
            self._extra = 0
            self._timer.reschedule(IDLE_SECONDS)

    def _finish(self, response: Response) -> None:
        self._last = True
        data = self._http.answer(response)
        if data:
            self._send(data)
        else:
            self.close()

    def _linger(self) -> None:
        self._lingering = True
        self._extra = 0
        self._timer.reschedule(LINGER_SECONDS)
        with contextlib.suppress(OSError):  # the other end has reset it: the next read tells
            self._connection.shutdown(socket.SHUT_WR)

    def _late(self) -> None:
        if self._http.begun and not (self._lingering or self.streaming or self._out):
            self._finish(refusal(408, f"a request must be here within {REQUEST_SECONDS:g} s", close=True))
        else:
            self.close()

    def close(self) -> None:
        """Idempotent."""
        if self._event.active:
            self._event.cancel()
            self._timer.cancel()
            self._connection.close()
            self._owner.ended(self)
