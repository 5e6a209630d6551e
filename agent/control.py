"""The running agent on its own machine, asked through a Unix socket beside the outbox's file.

One line of JSON each way: ``{"op": "status"}`` -> ``{"ok": true, "data": ...}`` or ``{"ok": false, "error": ...}``.
Whoever may open the socket may ask (mode 0600: the agent's own user, and root). The outbox's lock stands before it:
there is never another agent on the same path, so that a socket that is there already was left behind, and is replaced.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import orjson

from agent.events import EventManager, SocketEvent
from agent.logline import line

LONGEST = 4096
"""Bytes of a request."""
CLIENTS = 8
"""Askers at a time; the next ones are turned away."""
PATIENCE = 5.0
"""Seconds until an asker must have said what it wants, and again until it has taken the answer."""
EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
"""Why a connection that is there cannot be taken (accept(2)): it still waits, and the descriptor stays readable."""
BREATH = 1.0
"""Seconds until it is tried again after that."""
LONGEST_PATH = 107
"""Bytes of a socket's path (sockaddr_un, unix(7))."""

Answer: TypeAlias = Callable[[Any, str | None], None]
"""Called once with (data, None) or (None, what is wrong)."""
Operation: TypeAlias = Callable[[Answer], object]


def socket_path(outbox: Path) -> Path:
    """Where the agent with this outbox listens."""
    return outbox.with_name(f"{outbox.name}.sock")


class Control:
    """Listens, and answers by ``operations``; on the loop's thread alone."""

    def __init__(
        self,
        manager: EventManager,
        path: Path,
        operations: Mapping[str, Operation],
        log: logging.Logger | None = None,
    ) -> None:
        self._manager = manager
        self._path = path
        self._operations = operations
        self._log = log or logging.getLogger("outstation.control")
        self._socket: socket.socket | None = None
        self._event: SocketEvent | None = None
        self._clients: set[Client] = set()

    def start(self) -> None:
        """Listen. Where that fails the log says so, and the agent goes on without."""
        try:
            self._socket = self._listen()
        except OSError as error:
            self._log.warning(line("control.closed", path=self._path, reason=error.strerror or error))
            return
        self._event = self._manager.create_socket_event(self._socket, on_readable=self._accept, name="control")

    def _listen(self) -> socket.socket:
        if len(os.fsencode(self._path)) > LONGEST_PATH:
            raise OSError(f"a socket's path has at most {LONGEST_PATH} bytes; choose a shorter outbox.path")
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(self._path.lstat().st_mode):
                self._path.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            os.fchmod(listener.fileno(), 0o600)  # before there is a name by which anybody could open it (unix(7))
            listener.bind(os.fspath(self._path))
            listener.listen(CLIENTS)
        except OSError:
            listener.close()
            raise
        return listener

    def close(self) -> None:
        """Listen no more."""
        for client in tuple(self._clients):
            client.close()
        if self._event is not None and self._socket is not None:
            self._event.cancel()
            self._socket.close()
            self._socket = None
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _accept(self) -> None:
        assert self._socket is not None
        try:
            connection, _ = self._socket.accept()
        except OSError as error:
            if error.errno in EXHAUSTED and self._event is not None:  # the loop would spin
                self._event.pause()
                self._manager.create_timer_event(BREATH, self._event.resume, repeat=False, name="control.breath")
            return  # else gone again
        if len(self._clients) >= CLIENTS:
            connection.close()
            return
        self._clients.add(Client(self._manager, connection, self._ask, self._clients.discard))

    def _ask(self, request: bytes, answer: Answer) -> None:
        try:
            table = orjson.loads(request)
            op = table["op"] if isinstance(table, dict) else None
        except (orjson.JSONDecodeError, KeyError):
            op = None
        operation = self._operations.get(op) if isinstance(op, str) else None
        if operation is None:
            known = ", ".join(self._operations)
            answer(None, f'a request is one line, as {{"op": "status"}}; there are {known}')
        else:
            operation(answer)


class Client:
    """One who asks: a line in, a line out, and the end."""

    def __init__(
        self,
        manager: EventManager,
        connection: socket.socket,
        ask: Callable[[bytes, Answer], object],
        on_end: Callable[[Client], object],
    ) -> None:
        self._connection = connection
        self._ask = ask
        self._on_end = on_end
        self._request = b""
        self._answer: memoryview | None = None
        self._asked = False
        connection.setblocking(False)
        self._event = manager.create_socket_event(
            connection, on_readable=self._readable, on_writable=self._writable, name="control.client"
        )
        self._event.want_writable(False)
        self._timer = manager.create_timer_event(PATIENCE, self.close, repeat=False, name="control.patience")

    def _readable(self) -> None:
        try:
            data = self._connection.recv(LONGEST)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not data:
            self.close()
            return
        if self._asked:
            return  # one question a connection
        self._request += data
        request, newline, _ = self._request.partition(b"\n")
        if newline or len(self._request) > LONGEST:
            self._asked = True
            self._timer.cancel()  # an answer may take its time: a reload stops devices
            self._ask(request if newline else b"", self.answer)

    def answer(self, data: Any, error: str | None) -> None:
        """Send it; nothing where the asker has gone."""
        if not self._event.active or self._answer is not None:
            return
        said = {"ok": True, "data": data} if error is None else {"ok": False, "error": error, "data": data}
        self._answer = memoryview(orjson.dumps(said) + b"\n")
        self._event.want_writable(True)

    def _writable(self) -> None:
        assert self._answer is not None
        try:
            self._answer = self._answer[self._connection.send(self._answer) :]
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not self._answer:
            self.close()

    def close(self) -> None:
        """Idempotent."""
        if self._event.active:
            self._event.cancel()
            self._timer.cancel()
            self._connection.close()
            self._on_end(self)
