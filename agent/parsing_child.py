"""The other end of ``parsing``: a process that holds parsers and feeds them, until its connection ends."""

from __future__ import annotations

import contextlib
import pickle
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from agent.driver import Parser

_OOM_SCORE = 500
"""Where memory runs out the kernel shall end this process and not the agent (proc(5), oom_score_adj)."""


def main(descriptor: int) -> None:
    """Answer ``(word, token, data, pickled parser or None)`` with ``(error or None, items)``."""
    # Stop signals reach the whole service or terminal; what was read before one is parsed yet, and the agent ends us.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))
    connection = Connection(descriptor)
    parsers: dict[int, Parser] = {}
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            _answer(connection, parsers, *connection.recv())


def _answer(connection: Connection, parsers: dict[int, Parser], word: str, token: int, data: bytes, new: Any) -> None:
    try:
        if new is not None:
            parsers[token] = pickle.loads(new)
        items = tuple(parsers[token].feed(data) if word == "feed" else parsers.pop(token).end())
        answer = pickle.dumps((None, items))
    except Exception as error:  # noqa: BLE001 - a parser may raise anything; it goes back to the device's owner
        try:
            answer = pickle.dumps((error, ()))
            pickle.loads(answer)  # an exception whose constructor wants more can be pickled, and not unpickled
        except Exception:  # noqa: BLE001
            answer = pickle.dumps((RuntimeError(f"{type(error).__name__}: {error}"), ()))
    connection.send_bytes(answer)


if __name__ == "__main__":
    main(int(sys.argv[1]))
