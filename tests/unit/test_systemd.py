"""sd_notify over a real datagram socket, by path and in the abstract namespace."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.systemd import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        if request.param == "path":
            address = str(tmp_path / "notify")
            server.bind(address)
        else:
            address = f"@outstation-test-{os.getpid()}-{id(server)}"
            server.bind("\0" + address[1:])
        server.settimeout(5)
        yield address, server


def test_states_in_the_words_of_sd_notify(manager: tuple[str, socket.socket]) -> None:
    address, server = manager
    notifier = Notifier({"NOTIFY_SOCKET": address})
    assert notifier
    notifier.ready("2 of 2 devices online")
    assert server.recv(4096) == b"READY=1\nSTATUS=2 of 2 devices online"
    notifier.status("broker lost")
    assert server.recv(4096) == b"STATUS=broker lost"
    notifier.feed_watchdog()
    assert server.recv(4096) == b"WATCHDOG=1"
    notifier.stopping()
    assert server.recv(4096).startswith(b"STOPPING=1\n")


def test_without_systemd_nothing_happens() -> None:
    notifier = Notifier({})
    assert not notifier
    notifier.ready("x")
    assert notifier.watchdog_s is None


def test_a_service_manager_that_is_gone_costs_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    for _ in range(3):
        notifier.feed_watchdog()
    assert [r.levelno for r in caplog.records] == [logging.WARNING] * 2  # the 1st and the 2nd, not the 3rd
    assert "systemd.not_notified" in caplog.records[0].message


def test_a_full_queue_never_blocks(manager: tuple[str, socket.socket], caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager[0]})
    for _ in range(2000):  # far over net.unix.max_dgram_qlen
        notifier.feed_watchdog()
    assert any("systemd.not_notified" in r.message for r in caplog.records)


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "77"}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "78"}, None),  # meant for another process
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({}, None),
    ],
)
def test_watchdog(environ: dict[str, str], seconds: float | None) -> None:
    assert Notifier({"NOTIFY_SOCKET": "/run/none", **environ}, pid=77).watchdog_s == seconds
