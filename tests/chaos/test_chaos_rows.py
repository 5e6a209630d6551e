"""Each row of the chaos table in its short form: what is kept whatever the machine. `make chaos` runs the long one.

Most rows wait most of the time, for a broker that is away or a clock that is wrong; so they run side by side, three at
a time, from the first test on that asks for one. Each test then judges its own.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import pytest
from chaos_row import Row
from rows_broker import bad_manners, black_hole, broker_killed
from rows_clock import YEAR, boot_in_1970, earlier_boot, never_synchronised, steps
from rows_device import backlog, replug
from rows_disk import failing, full, healthy, killed_while_failing, read_only, slow
from rows_kill import clean_stop, kill_9, killed_in_outage
from rows_power import power_cut

ROWS: dict[str, Callable[[], Row]] = {  # those first that take longest
    "kill -9, strict": partial(kill_9, "strict", 116, seed=1, outages=True, long=False),
    "kill -9, spill": partial(kill_9, "spill", 84, seed=2, span=0.8, outages=True, long=False),
    "power cut, strict": partial(power_cut, "strict", 16, seed=5, images=10, long=False),
    "power cut, spill": partial(power_cut, "spill", 10, seed=6, images=10, long=False),
    "power cut, memory": partial(power_cut, "memory", 4, seed=7, images=10, long=False),
    "kill -9, memory": partial(kill_9, "memory", 16, seed=3, outages=True, long=False),
    "killed in an outage": partial(killed_in_outage, 2, seconds=2.0, durability="spill", seed=8, long=False),
    "clean stop, strict": partial(clean_stop, "strict", 3, seed=4),
    "clean stop, spill": partial(clean_stop, "spill", 3, seed=4),
    "clean stop, broker away": partial(clean_stop, "spill", 3, seed=4, outages=True),
    "broker killed": partial(broker_killed, 4, up=0.7, down=0.3),
    "broker that never acknowledges": partial(bad_manners, "mute", 2),
    "broker that acknowledges twice": partial(bad_manners, "twice", 50),
    "broker that closes, acknowledged": partial(bad_manners, "close acknowledged", 3),
    "broker that closes, unacknowledged": partial(bad_manners, "close unacknowledged", 3),
    "black hole, under load": partial(black_hole, 1, keepalive=2, busy=True, long=False),
    "black hole, in silence": partial(black_hole, 1, keepalive=2, busy=False, long=False),
    "disk, EIO": partial(failing, errno.EIO, 1, durability="strict"),
    "disk, ENOSPC": partial(failing, errno.ENOSPC, 1),
    "disk, EROFS": partial(failing, errno.EROFS, 1),
    "disk fails when it is killed": partial(killed_while_failing, errno.EIO, 1, read=False),
    "disk fails altogether when it is killed": partial(killed_while_failing, errno.EIO, 1, read=True),
    "disk full": partial(full, 1),
    "disk read-only": read_only,
    "nothing": partial(healthy, 2.0),
    "slow disk, strict": partial(slow, 2.0, delay=0.2, durability="strict"),
    "slow disk, spill": partial(slow, 2.0, delay=0.2, durability="spill"),
    "clock stepped": partial(steps, [-YEAR, YEAR, -30.0, 30.0], seconds=0.5, long=False),
    "boot in 1970": partial(boot_in_1970, seconds=2.0, hold=60.0, long=False),
    "boot at a stale time": partial(boot_in_1970, seconds=2.0, hold=60.0, stale=600.0, long=False),
    "clock never right": partial(never_synchronised, seconds=2.0, hold=1.0),
    "an earlier boot, true": partial(earlier_boot, true=True),
    "an earlier boot, untrue": partial(earlier_boot, true=False),
    "unplugged": partial(replug, 40, seed=6),
    "backlog, fifo": partial(backlog, 50_000, durability="spill", replay="fifo", long=False),
    "backlog, live_first": partial(backlog, 50_000, durability="spill", replay="live_first", long=False),
}

TOOLS = {"black hole": ("ip", "nft", "nsenter", "unshare"), "disk full": ("mount",), "disk read-only": ("mount",)}
"""By the beginning of a row's name: what it needs besides a compiler and Mosquitto. All of these want root, too."""

AT_A_TIME = 3
PATIENCE = 600.0  # seconds until a row is done that waits for others; a machine under load


def lacks(name: str) -> str | None:
    """Why that row cannot run here."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    needs = next((tools for beginning, tools in TOOLS.items() if name.startswith(beginning)), ())
    if missing := [tool for tool in ("cc", "mosquitto", *needs) if shutil.which(tool, path=path) is None]:
        return f"not installed: {', '.join(missing)}"
    if needs and os.geteuid() != 0:
        return "only root may mount and make network namespaces"
    return None


@pytest.fixture(scope="module")
def rows(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Row]]]:
    """The rows that were asked for, under way."""
    names = [item.callspec.params["name"] for item in request.session.items if item.fspath == request.node.fspath]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        yield {name: pool.submit(ROWS[name]) for name in names if lacks(name) is None}
        pool.shutdown(cancel_futures=True)  # where the tests were ended early


@pytest.mark.timeout(PATIENCE)
@pytest.mark.parametrize("name", ROWS)
def test_row(name: str, rows: dict[str, Future[Row]]) -> None:
    if (reason := lacks(name)) is not None:
        pytest.skip(reason)
    row = rows[name].result()
    row.check()
    if name == "kill -9, memory":
        assert row.verdict.young > 0, "the kills lost nothing: they do not try what they are to try"
