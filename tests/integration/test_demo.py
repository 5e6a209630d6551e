"""`outstation demo`, as people start it: on a terminal, in a pipe, with a broker of theirs or without, interrupted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from started import Started

from agent.testing import Broker, Subscriber

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "agent", "demo"]
SUMMARY = re.compile(
    r"received (\d+) readings \(weather (\d+), meter (\d+), host (\d+)\); lost 0, duplicates 0; faults \d+"
)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """The temporary directory of the demo: empty again when it has ended."""
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


def environment(home: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(home), **more}


def demo(home: Path, *args: str, timeout: float = 40.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *args], env=environment(home), capture_output=True, text=True, timeout=timeout, cwd=ROOT
    )


def started(home: Path, *args: str, terminal: bool = False) -> Started:
    return Started([*COMMAND, *args], environment(home, TERM="xterm", COLUMNS="80"), terminal=terminal)


def shows_all_devices(output: str) -> bool:
    return all(f"outstation/demo/{device}/telemetry {{" in output for device in ("weather", "meter", "host"))


def test_piped_it_writes_a_line_for_each_message_and_ends_in_time(home: Path) -> None:
    result = demo(home, "--seconds", "5")
    assert (result.returncode, result.stderr) == (0, "")
    assert shows_all_devices(result.stdout)
    assert re.search(
        r"^watch it +mosquitto_sub -h 127\.0\.0\.1 -p \d+ -t 'outstation/demo/#' -v$", result.stdout, re.MULTILINE
    )
    assert re.search(r"^configuration +\S+/outstation\.toml$", result.stdout, re.MULTILINE)
    assert "outstation/demo/availability offline" in result.stdout
    assert "\x1b" not in result.stdout
    last = result.stdout.splitlines()[-1]
    found = SUMMARY.match(last)
    assert found, last
    assert int(found[1]) == int(found[2]) + int(found[3]) + int(found[4]) >= 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_of_it_cleanly(home: Path, number: int) -> None:
    show = started(home, "--plain")
    show.wait_for(shows_all_devices)
    family = psutil.Process(show.process.pid).children(recursive=True)
    assert len(family) == 2  # the broker and the agent
    show.process.send_signal(number)
    assert show.end() == 0, show.output
    assert SUMMARY.match(show.output.splitlines()[-1])
    assert "agent.stopped unsent=0" in show.output
    assert not [child for child in family if child.is_running()]


def test_on_a_terminal_it_is_a_table_of_80_columns_until_ctrl_c(home: Path) -> None:
    show = started(home, terminal=True)
    show.wait_for(lambda output: re.search(r"weather #\d+ +temperature", output) and "host #1" in output)
    os.write(show.fd, b"c")
    show.wait_for(lambda output: "[device.channels.temperature]" in output)
    os.write(show.fd, b"\x03")
    show.wait_for(SUMMARY.search)
    assert termios.tcgetattr(show.slave) == show.settings  # as it was: echo and line editing
    assert show.end() == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", show.output)
    for word in ("device", "state", "readings", "lost", "dup", "faults", "mosquitto_sub -h 127.0.0.1"):
        assert word in plain
    drawn = re.split(r"[\r\n]+", plain[: plain.index("received ")])
    # But for the configuration, whose paths are as long as they are.
    assert max(len(line) for line in drawn if " = " not in line) <= 80


def test_whoever_stops_reading_ends_it(home: Path) -> None:
    show = started(home, "--plain")
    show.wait_for(lambda output: "telemetry" in output)
    os.close(show.fd)
    assert show.process.wait(30) == 0


def test_a_broker_of_yours_is_used_and_left_clean(home: Path) -> None:
    with Broker(username="greenhouse", password="a secret") as broker:
        url = broker.url.replace("//", "//greenhouse:a%20secret@")
        with Subscriber(url, "outstation/#") as subscriber:
            result = demo(home, "--broker", url, "--seconds", "3")
            assert result.returncode == 0, result.stdout + result.stderr
            message = subscriber.next("outstation/+/weather/telemetry")
            assert re.fullmatch(r"outstation/demo-[0-9a-f]{4}/weather/telemetry", message.topic)
        with Subscriber(url, "outstation/#") as later:
            later.publish("outstation/end", b"")
            assert [m.topic for m in later.wait_for(lambda got: got)] == ["outstation/end"]  # nothing was retained
    assert "secret" not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("broker", "words"),
    [
        ("mqtt://127.0.0.1:1", "Connection refused"),
        ("mqtt://no-such-host.invalid", "no-such-host.invalid:1883"),
        ("http://127.0.0.1", "write mqtt://"),
        ("mqtt://127.0.0.1:99999", "write mqtt://"),
        ("mqtt://", "write mqtt://"),
    ],
)
def test_a_broker_that_cannot_be_reached_is_told_in_one_line(home: Path, broker: str, words: str) -> None:
    result = demo(home, "--broker", broker, "--plain")
    assert result.returncode == 1
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_agent_that_ends_is_told_with_what_it_logged(home: Path) -> None:
    show = started(home, "--plain")
    show.wait_for(shows_all_devices)
    (agent,) = (p for p in psutil.Process(show.process.pid).children() if "run" in p.cmdline())
    agent.kill()
    assert show.end() == 1
    assert "outstation demo: the agent ended with status -9; it logged:" in show.output
    assert "Traceback" not in show.output


def test_killed_it_leaves_no_process(tmp_path: Path) -> None:
    show = started(tmp_path, "--plain")
    show.wait_for(shows_all_devices)
    family = psutil.Process(show.process.pid).children(recursive=True)
    show.process.kill()
    show.end()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive
