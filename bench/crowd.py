"""Who besieges the status page in bench/page.py: slow ones who never finish a request, and fast ones who ask all the
time. A process of its own, so that its work is not the judge's.

python -m bench.crowd PORT SECONDS SLOW RATE    prints one line of JSON
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from collections import Counter
from contextlib import suppress

from bench import common

FAST = 8
"""Connections that share the requests: as many as RATE needs, and fewer than the page has room for."""
PATHS = ("/healthz", "/api/status", "/metrics", "/", "/page.js", "/nothing")
DRIP = 1.0
"""Seconds between two bytes of a slow one."""


class Fast:
    """Asks one thing after another on one connection, and waits for each answer."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.busy = False
        self.asked = 0.0
        self._answer = b""
        self._number = 0

    def ask(self) -> None:
        path = PATHS[self._number % len(PATHS)]
        self._number += 1
        self.asked = time.monotonic()
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        self.busy = True

    def read(self) -> int | None:
        """The status, once all of the answer is here; 0: the connection was closed."""
        try:
            data = self.socket.recv(262_144)
        except ConnectionError:
            data = b""
        if not data:
            return 0
        self._answer += data
        head, end, body = self._answer.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().partition(b"content-length: ")[2].split()[0]):
            return None
        status = int(self._answer.split(b" ", 2)[1])
        self._answer, self.busy = b"", False
        return status


def besiege(port: int, seconds: float, slow: int, rate: float) -> dict[str, object]:
    selector = selectors.DefaultSelector()
    statuses: Counter[str] = Counter()
    taken: list[float] = []
    dripping: list[socket.socket] = []
    opened = ended = late = 0
    fast = [Fast(port) for _ in range(FAST)]
    for one in fast:
        selector.register(one.socket, selectors.EVENT_READ, one)
    begin = time.monotonic()
    due, drip = begin, begin
    while (now := time.monotonic()) < begin + seconds:
        if now >= drip:
            drip += DRIP
            while len(dripping) < slow:
                dripper = socket.socket()
                dripper.setblocking(False)
                with suppress(BlockingIOError):
                    dripper.connect(("127.0.0.1", port))
                selector.register(dripper, selectors.EVENT_READ)
                dripping.append(dripper)
                opened += 1
            for each in dripping:
                with suppress(OSError):
                    each.send(b"G" if opened % 2 else b"X")
        while due <= now and (free := [one for one in fast if not one.busy]):
            min(free, key=lambda one: one.asked).ask()  # in turn: who says nothing for long makes room for others
            due += 1 / rate
        if due < now - 0.1:  # it does not keep up: what is not asked is counted, not asked later
            missed = int((now - due) * rate)
            late += missed
            due += missed / rate
        for key, _ in selector.select(max(0.0, min(due, drip) - time.monotonic())):
            if key.data is None:
                with suppress(BlockingIOError, ConnectionError):
                    if key.fileobj.recv(4096):  # type: ignore[union-attr]
                        continue
                selector.unregister(key.fileobj)
                key.fileobj.close()  # type: ignore[union-attr]
                dripping.remove(key.fileobj)  # type: ignore[arg-type]
                ended += 1
                continue
            one = key.data
            status = one.read()
            if status is not None:
                statuses[str(status)] += 1
                taken.append(time.monotonic() - one.asked)
            if status == 0:
                selector.unregister(one.socket)
                one.socket.close()
                fast.remove(one)
    for each in (*dripping, *(one.socket for one in fast)):
        each.close()
    return {
        "requests_per_s": len(taken) / seconds,
        "statuses": dict(statuses),
        "not_asked": late,
        "slow_opened": opened,
        "slow_ended": ended,
        **{f"answer_{key}": value for key, value in common.latencies(taken).items()},
    }


if __name__ == "__main__":
    print(json.dumps(besiege(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))))
