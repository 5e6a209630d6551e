"""Line noise that comes again with the same seed."""

from __future__ import annotations

import random


class Garbler:
    """Flips bits and drops bytes, each byte with the given probability. The same seed garbles the same bytes alike."""

    def __init__(self, *, flips: float = 0.0, drops: float = 0.0, seed: int = 0) -> None:
        """flips: share of the bytes in which one bit is turned over; drops: share of the bytes that are lost; 0..1."""
        for name, share in (("flips", flips), ("drops", drops)):
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"{name} is a share between 0 and 1, not {share!r}")
        self._flips = flips
        self._drops = drops
        self._random = random.Random(seed)

    def __call__(self, data: bytes) -> bytes:
        """What arrives of data."""
        out = bytearray()
        chance = self._random.random
        for byte in data:
            # Both are drawn for each byte, so that a changed share leaves the other's pattern alone.
            dropped, flipped, bit = chance() < self._drops, chance() < self._flips, self._random.randrange(8)
            if not dropped:
                out.append(byte ^ (1 << bit) if flipped else byte)
        return bytes(out)
