"""The chaos table, in its long form: `make chaos`. Prints each row as it is done, and the table in Markdown at the end.

Root, cc, Mosquitto, ip and nft are needed; a quiet machine, too: what depends on it is judged here. ARGS="-k WORD" runs
the rows that have this word in their names.
"""

from __future__ import annotations

import argparse
import errno
import os
import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "integration"))

from chaos_row import Row, table
from rows_broker import bad_manners, black_hole, broker_killed
from rows_clock import YEAR, boot_in_1970, earlier_boot, never_synchronised, steps
from rows_device import backlog, replug
from rows_disk import failing, full, healthy, killed_while_failing, read_only, slow
from rows_kill import clean_stop, kill_9, killed_in_outage
from rows_power import power_cut

SEED = 20261124

ROWS: dict[str, Callable[[], Row]] = {
    "kill strict": partial(kill_9, "strict", 2000, seed=SEED, long=True),
    "kill strict away": partial(kill_9, "strict", 600, seed=SEED + 10, outages=True, long=True),
    "kill spill": partial(kill_9, "spill", 400, seed=SEED + 20, long=True),
    "kill spill away": partial(kill_9, "spill", 1000, seed=SEED + 30, span=1.0, outages=True, long=True),
    "kill memory away": partial(kill_9, "memory", 200, seed=SEED + 40, outages=True, long=True),
    "outage spill": partial(killed_in_outage, 5, seconds=20.0, durability="spill", seed=SEED, long=True),
    "stop strict": partial(clean_stop, "strict", 50, seed=SEED),
    "stop spill": partial(clean_stop, "spill", 50, seed=SEED),
    "stop spill away": partial(clean_stop, "spill", 50, seed=SEED, outages=True),
    "power strict": partial(power_cut, "strict", 200, seed=SEED, images=50, long=True),
    "power spill": partial(power_cut, "spill", 200, seed=SEED + 1, images=50, long=True),
    "power memory": partial(power_cut, "memory", 40, seed=SEED + 2, images=50, long=True),
    "broker flapping": partial(broker_killed, 60, up=1.0, down=0.2),
    "broker away": partial(broker_killed, 3, up=5.0, down=20.0),
    "broker mute": partial(bad_manners, "mute", 20),
    "broker twice": partial(bad_manners, "twice", 2000),
    "broker closes": partial(bad_manners, "close acknowledged", 20),
    "broker closes unacknowledged": partial(bad_manners, "close unacknowledged", 20),
    "hole busy": partial(black_hole, 5, keepalive=4, busy=True, long=True),
    "hole silent": partial(black_hole, 5, keepalive=4, busy=False, long=True),
    "disk eio strict": partial(failing, errno.EIO, 10, durability="strict"),
    "disk eio": partial(failing, errno.EIO, 10),
    "disk enospc": partial(failing, errno.ENOSPC, 10),
    "disk erofs": partial(failing, errno.EROFS, 10),
    "disk kill": partial(killed_while_failing, errno.EIO, 20, read=False),
    "disk kill read": partial(killed_while_failing, errno.EIO, 20, read=True),
    "disk full": partial(full, 10),
    "disk full strict": partial(full, 10, durability="strict"),
    "disk ro": read_only,
    "nothing": partial(healthy, 60.0),
    "disk slow strict": partial(slow, 20.0, delay=0.2, durability="strict"),
    "disk slow": partial(slow, 20.0, delay=0.2, durability="spill"),
    "clock steps": partial(steps, [-YEAR, YEAR, -30.0, 30.0], seconds=5.0, long=True),
    "clock 1970": partial(boot_in_1970, seconds=60.0, hold=120.0, long=True),
    "clock stale": partial(boot_in_1970, seconds=60.0, hold=120.0, stale=3600.0, long=True),
    "clock never": partial(never_synchronised, seconds=10.0, hold=5.0),
    "clock boot true": partial(earlier_boot, true=True),
    "clock boot untrue": partial(earlier_boot, true=False),
    "replug": partial(replug, 200, seed=SEED),
    "backlog spill": partial(backlog, 1_000_000, durability="spill", replay="fifo", long=True),
    "backlog live": partial(backlog, 1_000_000, durability="spill", replay="live_first", long=True),
    "backlog strict": partial(backlog, 1_000_000, durability="strict", replay="live_first", long=True),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-k", metavar="WORD", default="", help="only rows that have it in their names")
    parser.add_argument("-l", "--list", action="store_true", help="list their names")
    options = parser.parse_args()
    names = [name for name in ROWS if options.k in name]
    if options.list:
        print("\n".join(names))
        return 0
    if os.geteuid() != 0:
        print("some rows mount file systems and make network namespaces: run it as root", file=sys.stderr)
        return 1
    rows: list[Row] = []
    failed: list[str] = []
    begin = time.monotonic()
    for name in names:
        started = time.monotonic()
        try:
            row = ROWS[name]()
        except (AssertionError, TimeoutError) as error:
            failed.append(name)
            print(f"{name}: FAILED: {error}", file=sys.stderr, flush=True)
            continue
        rows.append(row)
        failed += [f"{name}: {promise}" for promise in row.missed(quick=False)]
        print(f"{name}: {time.monotonic() - started:.0f} s: {' | '.join(row.cells()[1:])}", file=sys.stderr, flush=True)
    minutes = (time.monotonic() - begin) / 60
    where = f"Python {platform.python_version()}, Linux {platform.release()}, {os.cpu_count()} cores"
    print(f"\n`make chaos`, {minutes:.0f} minutes, {where}:\n\n{table(rows)}")
    if failed:
        print("\nNot kept:\n" + "\n".join(f"- {each}" for each in failed))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
