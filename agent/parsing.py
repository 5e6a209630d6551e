"""Parsers in processes of their own, for what holds the interpreter's lock: ``workers.kind = "process"``.

A worker thread hands bytes to a child and waits for its answer, which lets go of the lock: order, weight, time-outs and
starvation are the pool's, as with threads. A child holds its parsers' state from one piece to the next. Where it dies
the piece is lost and counted as a fault, and the parser begins anew in another child (docs/decisions/037).
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection
from typing import Any

from agent.driver import Fault, Parser, Sample
from agent.logline import line

ANSWER_TIMEOUT = 25.0
"""Seconds for one answer: less than a piece of work has, so that the child is ended and not the thread given up."""

Items = tuple[Sample | Fault, ...]


@dataclass(frozen=True, slots=True)
class ParsingStats:
    """Processes that run now; those that died or hung and were replaced; parsers they hold."""

    processes: int
    replaced: int
    parsers: int


class Died(Exception):  # noqa: N818 - what happened, not an error of ours
    """A child has ended, or was ended, with a piece in hand. Caught here."""


class Child:
    """One process. Used by worker threads; one piece at a time, the others wait for it."""

    def __init__(self) -> None:
        self.parsers = 0
        """How many parsers were given to it."""
        self.generation = 0
        """Grows each time that what it knew is gone."""
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._closed = False

    @property
    def runs(self) -> bool:
        return self._connection is not None

    def call(self, word: str, token: int, argument: Any, new: bytes | None = None) -> Any:
        """What the parser ``token`` answers. new: pickled, if the child does not know it. Raises what it raised, Died,
        or TimeoutError."""
        with self._lock:
            if self._closed:
                raise Died("it was closed")
            if self._connection is None:
                self._start()
            connection = self._connection
            assert connection is not None
            try:
                connection.send((word, token, argument, new))
                if not connection.poll(ANSWER_TIMEOUT):
                    self._end()
                    raise TimeoutError(f"its parser did not answer within {ANSWER_TIMEOUT:g} s")
                error, answer = connection.recv()
            except (EOFError, ConnectionError) as gone:
                raise Died(self._end()) from gone
        if error is not None:
            raise error
        return answer

    def close(self) -> None:
        """End it for good. What it has in hand is lost, and the thread that waits for it gets Died."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()
        with self._lock:
            self._end()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "agent.parsing_child", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._connection = Connection(ours.detach())
        self.generation += 1
        if self._closed:  # by the loop meanwhile, which did not see this one
            self._process.kill()

    def _end(self) -> str:
        """It runs no more; how it ended."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        process, self._process = self._process, None
        if process is None:
            return "it was closed"
        process.kill()
        status = process.wait()
        return f"signal {-status}" if status < 0 else f"status {status}"


class HostedParser(Parser):
    """Stands for a parser in a child. ``feed`` and ``end`` wait for the answer: for a worker thread."""

    def __init__(self, host: ParsingHost, child: Child, token: int, pickled: bytes) -> None:
        self._host = host
        self._child = child
        self._token = token
        self._pickled = pickled
        self._generation = 0

    def feed(self, data: bytes) -> Iterable[Sample | Fault]:
        return self._call("feed", data)

    def end(self) -> Iterable[Sample | Fault]:
        self._child.parsers -= 1
        return self._call("end", b"")

    def _call(self, word: str, data: bytes) -> Items:
        child = self._child
        known = child.runs and self._generation == child.generation
        try:
            answer: Items = child.call(word, self._token, data, None if known else self._pickled)
        except Died as died:
            self._host.died(str(died))
            return (Fault("parser", f"its process ended ({died}); {len(data)} bytes are lost", data),)
        except TimeoutError:
            self._host.died("it did not answer")
            raise
        self._generation = child.generation
        return answer


class ParsingHost:
    """The children. most: how many at most; they are started when they are needed."""

    def __init__(self, most: int) -> None:
        self._children = [Child() for _ in range(max(1, min(most, os.cpu_count() or 1)))]
        self._tokens = count(1)
        self._replaced = 0
        self._log = logging.getLogger("outstation.parsing")

    def host(self, parser: Parser) -> Parser:
        """The parser, state and all, in the child that has the fewest; itself, where it cannot be taken there."""
        try:
            pickled = pickle.dumps(parser)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            self._log.warning(line("parsing.unpicklable", parser=type(parser).__name__, to="thread", reason=error))
            return parser
        child = min(self._children, key=lambda child: child.parsers)
        child.parsers += 1
        return HostedParser(self, child, next(self._tokens), pickled)

    def died(self, reason: str) -> None:
        """A child was lost: log it. From any worker; the count is for people, and a race loses one at most."""
        self._replaced += 1
        if not self._replaced & (self._replaced - 1):  # the 1st, 2nd, 4th, 8th ...
            self._log.error(line("parsing.died", times=self._replaced, reason=reason))

    def stats(self) -> ParsingStats:
        return ParsingStats(
            sum(child.runs for child in self._children),
            self._replaced,
            sum(child.parsers for child in self._children),
        )

    def close(self) -> None:
        """End all of them."""
        for child in self._children:
            with contextlib.suppress(ProcessLookupError):
                child.close()


def gil_is_on() -> bool:
    """Whether threads of this interpreter take turns (PEP 703): without its lock they do all that processes could."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())
