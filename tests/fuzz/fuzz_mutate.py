"""Inputs for parsers: golden cases, cut, spliced and garbled with their structure in mind.

Random bytes never get past a sync byte and a checksum, and bytes changed at random seldom past a number's syntax. So
what is moved about are the pieces that a protocol is made of (its lines, its list entries), and half of what comes of
it is sealed again: given the checksum that fits, which leads the parser to what stands behind the check.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Final

LONGEST: Final = 4096
"""Bytes of one input: eight telegrams of most meters. Longer ones only make the run slower."""
EDGES: Final = (b"\0", b"\xff", b"\x7f", b"\x80", b"-", b".", b"9" * 20, b"0", b"\n", b"\r", b" ", b"\x1b" * 4)
"""What stands at the borders of types and of syntax."""


class Mutator:
    """Makes inputs from samples. All chance comes from the seed: the n-th input is the same in every run."""

    def __init__(
        self,
        samples: Sequence[bytes],
        split: str,
        seal: Callable[[bytes], bytes] | None,
        seed: int,
        longest: int = LONGEST,
    ) -> None:
        """longest: bytes of an input; split: regular expression of what stands between (as a look-ahead: before) the
        pieces of a sample."""
        self._samples = [sample[at : at + longest] for sample in samples for at in range(0, len(sample), longest)]
        self._longest = longest
        pattern = re.compile(split.encode("latin-1"), re.DOTALL)
        self._pieces = sorted({piece for sample in samples for piece in pattern.split(sample) if piece})
        self._joints = sorted({found for sample in samples for found in pattern.findall(sample)} | {b""})
        self._seal = seal
        self.random = random.Random(seed)

    def next(self) -> bytes:
        """The next input: one to three bodies, one behind the other."""
        chance = self.random
        bodies = []
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            body = chance.choice((self._garbled, self._garbled, self._pieced, self._noise))()
            if self._seal is not None and chance.random() < 0.5:
                body = self._seal(body)
                if chance.random() < 0.1:
                    body = self._changed(body)
            bodies.append(body)
        return b"".join(bodies)[: self._longest]

    def _garbled(self) -> bytes:
        """A part of a sample with a few changes."""
        chance = self.random
        sample = chance.choice(self._samples)
        if chance.random() < 0.5:
            a, b = sorted((chance.randrange(len(sample) + 1), chance.randrange(len(sample) + 1)))
            sample = sample[a:b]
        for _ in range(chance.choice((0, 1, 1, 2, 4))):
            sample = self._changed(sample)
        return sample

    def _pieced(self) -> bytes:
        """Pieces of any samples, as they are and changed, in any order."""
        chance = self.random
        joint = chance.choice(self._joints)
        pieces = chance.choices(self._pieces, k=chance.randrange(1, 12)) if self._pieces else [b""]
        return joint.join(self._changed(piece) if chance.random() < 0.3 else piece for piece in pieces)

    def _noise(self) -> bytes:
        return self.random.randbytes(self.random.randrange(40))

    def _changed(self, data: bytes) -> bytes:
        chance = self.random
        at = chance.randrange(len(data) + 1)
        match chance.randrange(7):
            case 0:  # one bit
                return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :] if data[at:] else data
            case 1:
                return data[:at] + chance.randbytes(1) + data[at + 1 :]
            case 2:  # lost
                return data[:at] + data[at + chance.choice((1, 2, 8, 64)) :]
            case 3:
                return data[:at] + chance.choice(EDGES) + data[at:]
            case 4:  # twice
                return data[: at + chance.randrange(64)] + data[at:]
            case 5 if self._pieces:
                return data[:at] + chance.choice(self._pieces) + data[at:]
            case _:  # the tail of another one
                other = chance.choice(self._samples)
                return data[:at] + other[chance.randrange(len(other) + 1) :]
