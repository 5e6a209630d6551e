"""A subscriber that costs next to nothing while others are measured: `python -m bench.counter PORT TOPICS FIRST`.

It keeps what comes as it comes, with the time of each read, and takes it apart when all is over. It says "ready"; a
line on stdin tells the number of the last line that was sent (they begin with FIRST) and how long a silence (seconds)
means that it will not come. Then it says "over" and, as JSON: how many messages and readings came, how many numbers
were lost, came twice or out of order, and when the first and the last of them came (seconds of CLOCK_MONOTONIC).
"""

from __future__ import annotations

import json
import re
import select
import sys
import time
from array import array

from bench import common

RECEIVE = 1 << 20
"""Bytes of one read: all that has come meanwhile."""
_NUMBER = re.compile(rb'"n": ?(\d+)')


def record(subscriber: common.Subscriber, first: int) -> tuple[list[tuple[float, bytes]], int]:
    """What came, with its times, until the last line is there; and the number of the last line that was sent."""
    kept: list[tuple[float, bytes]] = []
    sock, stdin = subscriber.socket, sys.stdin
    tail = b""
    last: bytes | None = None
    number = first - 1
    silence, heard = 0.0, time.monotonic()
    watched = [sock, stdin]
    while True:
        ready = select.select(watched, [], [], None if last is None else 0.2)[0]
        now = time.monotonic()
        if stdin in ready:
            number, silence = json.loads(stdin.readline())
            last = b'"n":%d,' % number
            watched, heard = [sock], now
            if any(last in data for _, data in kept[-50:]):
                return kept, number
        if sock in ready:
            data = sock.recv(RECEIVE)
            if not data:
                raise ConnectionError("the broker closed the connection")
            kept.append((now, data))
            heard = now
            if last is not None:
                if last in tail + data:
                    return kept, number
                tail = data[-32:]
        elif last is not None and now - heard > silence:
            return kept, number


def payloads(stream: bytes) -> tuple[int, bytes]:
    """Of the PUBLISH packets (QoS 0) in it: how many there are, and their payloads joined. The last may be cut off."""
    view = memoryview(stream)
    parts: list[memoryview] = []
    at, size = 0, len(stream)
    while at + 2 <= size:
        kind = stream[at]
        head = at + 1
        length = shift = 0
        while head < size:
            digit = stream[head]
            head += 1
            length |= (digit & 127) << shift
            shift += 7
            if digit < 128:
                break
        at = head + length
        if at > size:
            break
        if kind >> 4 == 3:
            topic = stream[head] << 8 | stream[head + 1]
            parts.append(view[head + 2 + topic : at])
    return len(parts), b"".join(parts)


def main() -> None:
    port, topics, first = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    subscriber = common.Subscriber(port, topics)
    print("ready", flush=True)
    kept, last = record(subscriber, first)
    print("over", flush=True)
    messages, joined = payloads(b"".join(data for _, data in kept))
    numbers = array("q", (n for n in map(int, _NUMBER.findall(joined)) if n >= first))
    verdict = common.judge(last - first + 1, (n - first for n in numbers))
    result = {"messages": messages, "begin": kept[0][0] if kept else 0.0, "end": kept[-1][0] if kept else 0.0}
    print(json.dumps({**result, **vars(verdict)}), flush=True)


if __name__ == "__main__":
    main()
