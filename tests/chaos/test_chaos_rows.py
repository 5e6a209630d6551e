"""Each row of the chaos table in its short form: what is kept whatever the machine. `make chaos` runs the long one.

Most rows wait most of the time, for a broker that is away or a clock that is wrong; so they run side by side, three at
a time, from the first test on that asks for one. Each test then judges its own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import pytest
from chaos_row import Row
from rows_broker import bad_manners, black_hole, broker_killed
from rows_clock import YEAR, steps
from rows_device import replug

ROWS: dict[str, Callable[[], Row]] = {
    "broker killed": partial(broker_killed, 4, up=0.7, down=0.3),
    "broker that never acknowledges": partial(bad_manners, "mute", 2),
    "broker that acknowledges twice": partial(bad_manners, "twice", 50),
    "broker that closes, acknowledged": partial(bad_manners, "close acknowledged", 3),
    "broker that closes, unacknowledged": partial(bad_manners, "close unacknowledged", 3),
    "black hole, under load": partial(black_hole, 1, keepalive=2, busy=True, long=False),
    "black hole, in silence": partial(black_hole, 1, keepalive=2, busy=False, long=False),
    "clock stepped": partial(steps, [-YEAR, YEAR, -30.0, 30.0], seconds=0.5, long=False),
    "unplugged": partial(replug, 40, seed=6),
}

TOOLS = {"black hole": ("ip", "nft", "nsenter", "unshare")}
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
