"""The exec driver on the real loop: real commands, in order, and nothing of them left behind."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from streams import Station, station

from drivers.exec import Exec


@pytest.fixture
def at() -> Iterator[Station]:
    with station() as made:
        yield made


def test_a_command_is_run_again_and_again(at: Station, tmp_path: Path) -> None:
    count = f"echo x >> {tmp_path}/runs; wc -l < {tmp_path}/runs"
    at.add(Exec, shell=count, interval=0.2, format="scalar")
    at.start()
    at.until(lambda: len(at.readings) >= 3)
    assert at.values() == sorted(set(at.values()))  # on a slow machine a run may be too late, and give nothing
    assert at.supervisor.devices["d"].openings == 1


def test_a_command_that_runs_on_is_started_again_when_it_ends(at: Station) -> None:
    at.add(Exec, command=["printf", "1\\n2\\n"], format="scalar")
    at.start()
    at.until(lambda: at.values() == [1, 2, 1, 2])
    assert at.faults()["exit"] >= 1
    assert at.supervisor.devices["d"].openings >= 2


def test_a_flood_is_read_whole_and_in_order(at: Station) -> None:
    code = "for n in range(30_000): print(n)"
    at.add(Exec, command=[sys.executable, "-I", "-S", "-c", code], interval=600, format="scalar")
    at.start()
    at.until(lambda: len(at.readings) == 30_000)
    assert at.values() == list(range(30_000))


def test_stopping_ends_what_runs() -> None:
    with station() as at:
        at.add(Exec, "on", shell="echo $$; exec sleep 1000", format="scalar")
        at.add(Exec, "due", shell="echo $$; sleep 1000; true", interval=600, format="scalar")
        at.start()
        at.until(lambda: len(at.readings) == 2)
        watched = [os.pidfd_open(int(pid)) for pid in at.values()]
        at.stop()
    for pidfd in watched:
        assert select.select([pidfd], [], [], 20.0)[0], "it still runs"
        os.close(pidfd)


def test_a_command_that_is_not_there_is_tried_again_and_does_not_end_the_agent(at: Station) -> None:
    at.add(Exec, command=["no-such-program-here"], interval=1, format="scalar")
    at.start()
    at.until(lambda: at.state() == "waiting")
    assert "no such program" in str(at.supervisor.devices["d"].reason)
