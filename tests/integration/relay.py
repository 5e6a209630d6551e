"""A TCP relay that can be cut: the agent loses the broker, while the judge stays subscribed and misses nothing."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from types import TracebackType
from typing import Self


class Relay:
    """Forwards connections to a port of 127.0.0.1 until ``cut``; from ``mend`` on again, on the same port."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._wake, self._woken = socket.socketpair()
        self._lock = threading.Lock()
        self._cut = False
        self._ended = False
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Reset what is connected, and refuse what comes."""
        with self._lock:
            self._cut = True
            for sock in list(self._pairs):
                # Linger of zero: a reset, as from a broker that was killed.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                sock.close()
            self._pairs.clear()
        self._wake.send(b"x")

    def mend(self) -> None:
        with self._lock:
            self._cut = False

    def close(self) -> None:
        self._ended = True
        self.cut()
        self._thread.join()
        for sock in (self._listener, self._wake, self._woken):
            sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _run(self) -> None:
        while not self._ended:
            with self._lock:
                watched = [self._listener, self._woken, *self._pairs]
            with contextlib.suppress(OSError, ValueError):  # cut while it was waited for
                for sock in select.select(watched, [], [])[0]:
                    self._serve(sock)

    def _serve(self, sock: socket.socket) -> None:
        if sock is self._woken:
            sock.recv(64)
            return
        if sock is self._listener:
            ours, _ = sock.accept()
            with self._lock:
                if self._cut:
                    ours.close()
                    return
                theirs = socket.create_connection(("127.0.0.1", self._target))
                self._pairs[ours], self._pairs[theirs] = theirs, ours
            return
        with self._lock:
            other = self._pairs.get(sock)
            if other is None:
                return
            data = b""
            with contextlib.suppress(OSError):
                data = sock.recv(65536)
            if data:
                other.sendall(data)
                return
            for end in (sock, other):
                self._pairs.pop(end, None)
                end.close()
