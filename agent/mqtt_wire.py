"""The socket under paho: bytes in by one ``recv`` an event, bytes out by one ``send`` a turn.

paho asks its socket for one byte, one byte and the rest of each packet, and writes each packet by itself. Given this in
place of the socket, a PUBACK costs no system call of its own, a turn's PUBLISH packets leave in one segment (one record
under TLS), and a socket that is full is our business alone: paho's queue of packets is always empty.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Protocol

from agent.mqtt_errors import is_tls
from agent.mqtt_websocket import WebSocketStream

_CHUNK = 65_536  # what one recv takes: over a thousand PUBACKs
_LARGEST_IN = 1_048_576  # far more than a command for an output takes; beyond it a broker is broken, or means harm

_ABORT = struct.pack("ii", 1, 0)  # struct linger, socket(7): close at once
_WANT = (2, 3)  # SSL_ERROR_WANT_READ and SSL_ERROR_WANT_WRITE (openssl/ssl.h)


def _later(error: OSError) -> bool:
    """Whether the socket only wants to be asked again (BlockingIOError; ssl.SSLWantReadError, SSLWantWriteError)."""
    return isinstance(error, BlockingIOError) or (is_tls(error) and error.errno in _WANT)


class _Stream(Protocol):
    """socket.socket or ssl.SSLSocket, as far as it is used here."""

    def recv(self, size: int, /) -> bytes: ...

    def send(self, data: bytes | bytearray | memoryview, /) -> int: ...


def _ignore(_full: bool) -> None:
    pass


def _nothing() -> None:
    pass


class Wire:
    """A connected socket, buffered both ways. All of it is called on the loop's thread.

    on_close: called before the descriptor is closed, whoever closes it, so that it can be unwatched first.
    on_full: called with True when the socket takes no more, so that writability must be watched, and with False when
    all has gone out.
    """

    def __init__(self, sock: socket.socket, websocket: WebSocketStream | None = None) -> None:
        self.on_full: Callable[[bool], None] = _ignore
        self.on_close: Callable[[], None] = _nothing
        self.first = b""
        """The first bytes that came: what answers where no broker does shows in them."""
        self.received = 0
        """How many bytes came."""
        self.error: OSError | None = None
        """What ended it, where that was an error."""
        self.ended = False
        self._sock = sock
        self._stream: _Stream = sock
        self._pending: Callable[[], int] | None = getattr(sock, "pending", None)  # ssl.SSLSocket's
        self._websocket = websocket
        self._in = b""
        self._at = 0
        self._out = bytearray()
        self._corked = False
        self._full = False
        self._linger = False
        self._closing = False
        self._low_water = 1

    # --- towards paho: what it calls a SocketLike

    def fileno(self) -> int:
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:
        self._sock.setblocking(flag)

    def settimeout(self, seconds: float) -> None:
        """Let each read and write wait so long: for a worker, which has nothing else to do."""
        self._sock.settimeout(seconds)

    def recv(self, size: int) -> bytes:
        """From what ``fill`` has read; never the socket itself."""
        at = self._at
        data = self._in[at : at + size]
        if data:
            self._at = at + len(data)
            return data
        if size > _LARGEST_IN:
            raise ConnectionAbortedError(f"a packet of {size} bytes")
        if self.error is not None:
            raise self.error
        if self.ended:
            return b""
        raise BlockingIOError

    def send(self, data: bytes | bytearray) -> int:
        """Take all of it; what the socket does not take now goes out later. Raises OSError if it is lost."""
        self._out += data if self._websocket is None else self._websocket.frame(data)
        if not self._corked:
            self.flush()
        return len(data)

    def close(self) -> None:
        if self._linger:
            self._closing = True
            self._say_end()
            return
        self.on_close()
        self._sock.close()

    # --- towards the session

    @property
    def buffered(self) -> int:
        """Bytes that came and that paho has not asked for."""
        return len(self._in) - self._at

    def unread(self) -> bytes:
        """Them."""
        return self._in[self._at :] if self._at else self._in

    def skip(self, size: int) -> None:
        """So many of them were read past paho."""
        self._at += size

    @property
    def backlog(self) -> int:
        """Bytes that are still to go out."""
        return len(self._out)

    def feed(self, data: bytes) -> None:
        """Take in bytes from the socket. Raises ConnectionAbortedError if they are no WebSocket's frames."""
        if self._websocket is not None:
            data = self._websocket.feed(data)
            if self._websocket.reply:
                self._out += self._websocket.reply
                self._websocket.reply = b""
            if self._websocket.closed:
                self.ended = True
        self._in = self._in[self._at :] + data if self._at < len(self._in) else data
        self._at = 0
        if len(self.first) < 4:
            self.first = (self.first + data)[:4]

    def fill(self) -> None:
        """Read what there is. Its end or an error shows in ``ended`` and ``error``, and to paho behind the bytes."""
        if self.ended:
            return
        try:
            data = self._stream.recv(_CHUNK)
            if data:
                self.received += len(data)
                self.feed(data)
            else:
                self.ended = True
            while self._pending is not None and not self.ended and self._pending():
                # Decrypted bytes lie in the TLS layer, where epoll does not see them.
                self.feed(self._stream.recv(_CHUNK))
            if self._out and not self._corked and not self.ended:  # a WebSocket's pong
                self.flush()
        except OSError as error:
            if _later(error):
                return
            self.error = error
            self.ended = True

    def report_from(self, size: int) -> bool:
        """Be readable once ``size`` bytes have come, or the end (SO_RCVLOWAT, socket(7)). Whether it was so before."""
        if size == self._low_water:
            return True
        self._low_water = size
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
        return False

    def cork(self) -> None:
        """Hold back what is sent until ``uncork``."""
        self._corked = True

    def uncork(self) -> None:
        """Send what was held back. Raises OSError if the connection is lost."""
        self._corked = False
        if self._out:
            self.flush()

    def flush(self) -> None:
        """Send as much as the socket takes. Raises OSError if the connection is lost."""
        out = self._out
        try:
            while out:
                sent = self._stream.send(out)
                if sent == len(out):
                    out.clear()
                else:
                    del out[:sent]
            if self._closing:
                self._say_end()
        except OSError as error:
            # Where it is only full, TLS must be offered the same bytes again: they stand at the front of the buffer,
            # and more may follow them.
            if not _later(error):
                # What the other side said before it closed (a TLS alert, a DISCONNECT) tells more than our broken pipe.
                self.fill()
                if self.error is None:
                    self.error = error
                self.ended = True
                raise
        if bool(out) != self._full:
            self._full = not self._full
            self.on_full(self._full)

    def linger(self) -> None:
        """Let the next ``close`` only say that no more follows. What is closed with unread bytes is reset (RFC 2525,
        section 2.17), which may overtake a DISCONNECT; so the other side closes first, and ``close`` is called again.
        """
        self._linger = True

    def _say_end(self) -> None:
        if not self._out:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)

    def end(self, *, abort: bool = False) -> None:
        """Close for good. abort: what the kernel still holds is not sent any more.

        Else it would be sent for minutes yet, and come through when a dead link comes back: all of it a second time.
        """
        self._linger = False
        if abort:
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        self.close()
