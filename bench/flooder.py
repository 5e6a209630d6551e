"""A device that sends as fast as its line takes: `python -m bench.flooder FD SECONDS FIRST`, started by `bench.flood`.

FD is the master of a pty in blocking mode, whose flow control holds the writer while the reader is behind: nothing is
lost on the way. It says "ready", waits for a line on stdin, writes whole lines for SECONDS, numbered from FIRST on, and
then says how many it wrote and when the first and the last write began and ended (JSON; seconds of CLOCK_MONOTONIC).
"""

from __future__ import annotations

import json
import os
import sys
import time

CHUNK = 200
"""Lines in one write: four times what a pty holds, so that it is the kernel that wakes us, and seldom."""
LINE = b'{"n":%d,"temperature":21.5,"humidity":44.1,"pressure":1013.25}\n'


def main() -> None:
    fd, seconds, first = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    print("ready", flush=True)
    if not sys.stdin.readline():
        return
    number = first
    begin = time.monotonic()
    end = begin + seconds
    while time.monotonic() < end:
        data = b"".join([LINE % n for n in range(number, number + CHUNK)])
        while data:
            data = data[os.write(fd, data) :]
        number += CHUNK
    print(json.dumps({"sent": number - first, "begin": begin, "end": time.monotonic()}), flush=True)


if __name__ == "__main__":
    main()
