"""What a parser that holds the interpreter's lock gains from processes: the pool alone, no ports, no broker.

The same pieces of text for eight devices, through the event manager's workers: parsed by threads, in one process, in
two. Seconds until all are parsed.
"""

from __future__ import annotations

import statistics
import time

from agent.driver import Parser
from agent.events import EventManager
from agent.parsing import ParsingHost
from bench import common
from drivers.lines import Lines, LinesConfig

DEVICES = 8
PIECE = 4096  # bytes: what one read of a pty brings
PATTERN = r"(?P<a>\d+);(?P<b>-?\d+\.\d+);(?P<c>\w+);(?P<d>[0-9a-f]+)"


def parsers(host: ParsingHost | None) -> list[Parser]:
    config = LinesConfig.model_validate(
        {"name": "d", "driver": "lines", "port": "/dev/null", "format": "regex", "pattern": PATTERN}
    )
    made: list[Parser] = [Lines(config, None).parser() for _ in range(DEVICES)]  # type: ignore[arg-type]
    return made if host is None else [host.host(parser) for parser in made]


def once(processes: int, pieces: int) -> float:
    """Seconds for so many pieces for each device; processes 0: threads."""
    host = ParsingHost(processes) if processes else None
    text = b"".join(b"%d;-%d.25;abc_%d;%x\n" % (n, n, n, n) for n in range(1000))[:PIECE]
    done = 0
    found = 0

    def parsed(items: int) -> None:
        nonlocal done, found
        done += 1
        found += items

    with EventManager(workers=(DEVICES, DEVICES), work_queue=DEVICES * pieces) as manager:
        made = parsers(host)
        for parser in made:  # the children are there before the clock runs
            tuple(parser.feed(b"1;2.0;c;d\n"))
        begin = time.perf_counter()
        for _ in range(pieces):
            for index, parser in enumerate(made):
                manager.execute_work(
                    lambda parser=parser: len(tuple(parser.feed(text))), on_done=parsed, key=str(index), name="parse"
                )
        while done < DEVICES * pieces:
            manager.run_once(1.0)
        taken = time.perf_counter() - begin
    assert found > DEVICES * pieces, "nothing was parsed"
    if host is not None:
        host.close()
    return taken


def main(argv: list[str] | None = None) -> int:
    parser = common.parser(__doc__)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args(argv)
    where = common.machine()
    pieces = 20 if options.quick else 200
    taken: dict[str, list[float]] = {"threads": [], "one process": [], "two processes": []}
    for _ in range(3 if options.quick else options.runs):
        for count, seconds in enumerate(taken.values()):
            seconds.append(once(count, pieces))
    rows: list[common.Row] = [
        {
            "who": who,
            "runs": len(seconds),
            "median_s": statistics.median(seconds),
            "mb_per_s": DEVICES * pieces * PIECE / statistics.median(seconds) / 1e6,
        }
        for who, seconds in taken.items()
    ]
    gain = statistics.median(taken["one process"]) / statistics.median(taken["two processes"])
    beside = statistics.median(taken["threads"]) / statistics.median(taken["two processes"])
    limits = [common.Limit("two processes at least 1.6 times as fast as one", gain >= 1.6, speed=True)]
    ratios = {"workers: two processes, to one": gain, "workers: two processes, to threads": beside}
    return common.show(f"parsers of {DEVICES} devices", rows, limits, options, where, ratios)


if __name__ == "__main__":
    raise SystemExit(main())
