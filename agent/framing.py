"""Bytes to lines: pure, bulk, and in time proportional to the bytes however they are cut."""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

from agent.model import Fault

Ending: TypeAlias = Literal["lf", "crlf", "cr", "any", "slip", "cobs"]
"""How lines end, as the configuration says it; "any" takes LF, CR and CR LF, mixed as they come.

In "slip" and "cobs" each packet is a line, which framing_packets decodes.
"""

ENDINGS: Final[dict[Ending, bytes | None]] = {
    "lf": b"\n",
    "crlf": b"\r\n",
    "cr": b"\r",
    "any": None,
    "slip": b"\xc0",
    "cobs": b"\0",
}
"""What LineFramer takes for each of them."""

SAMPLE: Final = 64
"""Bytes of an overlong line that its Fault shows: as many as the status does."""

_ANY = re.compile(rb"[\r\n]")


class LineFramer:
    """Splits a stream into lines, without their endings, and gives up on one that does not end.

    A line of more than ``longest`` bytes becomes one ``Fault("too_long")``, at the latest when ``longest`` bytes and
    an ending's length have come; everything up to the next ending is then dropped, so that endless noise needs no
    memory. Empty lines are given as ``b""``. The same bytes give the same items however they are cut.

    Cost: every byte is copied a few times. A line that comes in pieces is collected in a bytearray and searched on
    from where the last search ended, as joining and splitting the whole at each piece would be quadratic.
    """

    def __init__(self, ending: bytes | None = None, longest: int = 4096, what: str = "line") -> None:
        """ending: the bytes that end a line, or None for any of LF, CR, CR LF; longest: bytes, without the ending.

        what: what a fault calls it.
        """
        if ending == b"":
            raise ValueError("an ending has at least one byte; None stands for any of LF, CR, CR LF")
        if longest < 1:
            raise ValueError("longest is at least 1 byte")
        self._ending = ending
        self._longest = longest
        self._what = what
        self._enough = longest + (len(ending) if ending else 1)  # so many bytes without an ending: too long in any case
        self._rest = bytearray()
        self._dropping = False  # inside a line that has already been given up
        self._after_cr = False  # "any" only: an LF that comes first belongs to the CR before it

    def feed(self, data: bytes) -> list[bytes | Fault]:
        """The lines that data completes, in order, with a Fault where one was too long."""
        ending = self._ending
        if ending is None and data:
            if self._after_cr and data[0] == 10:
                data = data[1:]
                self._after_cr = False
            if data:
                self._after_cr = data[-1] == 13
        rest = self._rest
        if rest:
            searched = len(rest) if ending is None else max(0, len(rest) - len(ending) + 1)
            rest += data
            if not self._ends(rest, searched):
                return self._overflow()
            data = bytes(rest)
            rest.clear()
        lines: list[bytes]
        if ending is not None:
            lines = data.split(ending)
            rest += lines.pop()
        else:
            lines = data.splitlines()  # of bytes: LF, CR and CR LF, no other
            if lines and data[-1] not in b"\r\n":
                rest += lines.pop()
        if not lines:
            return self._overflow() if rest else []
        items: list[bytes | Fault] = [*lines]
        if max(map(len, lines)) > self._longest:
            items = [self._too_long(line) if len(line) > self._longest else line for line in lines]
        if self._dropping:
            self._dropping = False
            del items[0]
        if rest:
            items += self._overflow()
        return items

    def end(self) -> list[Fault]:
        """The stream ends: half a line is a Fault("cut"). Afterwards the framer is as new."""
        faults = []
        if self._rest and not self._dropping:
            faults.append(Fault("cut", f"the stream ended within a {self._what}", bytes(self._rest[:SAMPLE])))
        self._rest.clear()
        self._dropping = self._after_cr = False
        return faults

    def _ends(self, rest: bytearray, start: int) -> bool:
        if self._ending is None:
            return _ANY.search(rest, start) is not None
        return rest.find(self._ending, start) >= 0

    def _overflow(self) -> list[bytes | Fault]:
        """A Fault if what is left can no longer become a line; while dropping keep only what may begin an ending."""
        rest = self._rest
        faults: list[bytes | Fault] = []
        if not self._dropping and len(rest) >= self._enough:
            faults.append(self._too_long(rest))
            self._dropping = True
        if self._dropping:
            keep = len(self._ending) - 1 if self._ending else 0
            del rest[: max(0, len(rest) - keep)]
        return faults

    def _too_long(self, line: bytes | bytearray) -> Fault:
        raw = bytes(line[: min(SAMPLE, self._longest)])
        return Fault("too_long", f"a {self._what} of more than {self._longest} bytes", raw)
