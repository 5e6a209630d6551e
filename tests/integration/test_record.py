"""`outstation record` and `replay` on a pty: what was recorded gives the same readings again, and a golden case."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.testing import PtyPort
from agent.testing.cases import check
from drivers.exec import Exec
from drivers.lines import Lines

ROOT = Path(__file__).parents[2]
LINES = ['{"t": 21.5, "h": 44}', '{"t": broken', '{"t": 22.0, "h": 45}']


@pytest.fixture
def device() -> Iterator[PtyPort]:
    with PtyPort() as device:
        yield device


def outstation(*words: object, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agent", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False, **more)


class Recording:
    """`outstation record` at work."""

    def __init__(self, file: Path, *words: object) -> None:
        self.file = file
        command = [sys.executable, "-m", "agent", "record", *map(str, words), "-o", str(file)]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)

    def holds(self, until: str) -> None:
        deadline = time.monotonic() + 30
        while until not in self.text() and time.monotonic() < deadline and self.process.poll() is None:
            time.sleep(0.01)
        assert until in self.text()

    def end(self, until: str) -> tuple[int, str]:
        """Wait until the file holds it, then end by SIGINT: status and what was said."""
        self.holds(until)
        self.process.send_signal(signal.SIGINT)
        said = self.process.communicate(timeout=20)[1]
        return self.process.returncode, said

    def text(self) -> str:
        return self.file.read_text() if self.file.exists() else ""


def config(folder: Path, device: PtyPort) -> Path:
    file = folder / "outstation.toml"
    file.write_text(
        '[mqtt]\nurls = ["mqtt://127.0.0.1"]\n'
        f'[[device]]\nname = "weather"\ndriver = "lines"\nport = "{device.path}"\nformat = "json"\nwakeup = "go"\n'
    )
    return file


def test_a_recording_gives_the_same_again_and_becomes_a_golden_case(device: PtyPort, tmp_path: Path) -> None:
    recording = Recording(tmp_path / "weather.jsonl", "weather", "-c", config(tmp_path, device))
    device.expect(b"go")
    for line in LINES[:2]:
        device.send(line)
    recording.holds("broken")
    device.unplug()
    device.replug()
    device.send(LINES[2])
    status, said = recording.end("45")
    assert status == 0
    assert said.endswith(f"recorded {sum(map(len, LINES)) + 3} bytes, 2 readings, 1 faults\n")
    events = [json.loads(line) for line in recording.text().splitlines()]
    assert events[0]["device"]["wakeup"] == "go"
    assert [event.get("event") for event in events if "event" in event] == ["opened", "lost", "opened"]
    assert [event["tx"] for event in events if "tx" in event] == ["go", "go"]

    for speed in ([], ["--speed", "1000"]):
        again = outstation("replay", recording.file, *speed)
        assert again.returncode == 0, again.stderr
        items = [json.loads(line) for line in again.stdout.splitlines()]
        assert [item.get("fields", item.get("fault")) for item in items] == [
            {"t": 21.5, "h": 44},
            "syntax",
            {"t": 22.0, "h": 45},
        ]
        assert 0 <= items[0]["t"] <= items[1]["t"] < items[2]["t"]

    case = tmp_path / "cases" / "weather"
    made = outstation("replay", recording.file, "--case", case)
    assert made.returncode == 0, made.stderr
    check(Lines, case)
    assert (case / "input.txt").read_text() == "".join(line + "\n" for line in LINES[:2])
    (case / "expected.jsonl").write_text("")
    with pytest.raises(AssertionError, match="gives"):
        check(Lines, case)
    assert "is there already" in outstation("replay", recording.file, "--case", case).stderr


def test_a_port_without_a_driver_is_recorded_raw_and_replayed_by_a_table(device: PtyPort, tmp_path: Path) -> None:
    recording = Recording(tmp_path / "raw.jsonl", device.path, "--baudrate", "115200")
    device.send(b"\x00\xfftemp=5\n")
    status, said = recording.end("rx_hex")
    assert (status, said) == (0, "recorded 9 bytes\n")
    assert "driver" not in json.loads(recording.text().splitlines()[0])["device"]
    refused = outstation("replay", recording.file)
    assert refused.returncode == 78
    assert "names no driver" in refused.stderr
    (tmp_path / "device.toml").write_text(
        'name = "x"\ndriver = "lines"\nport = "/dev/null"\nformat = "kv"\nencoding = "latin-1"\n'
    )
    again = outstation("replay", recording.file, "--device", tmp_path / "device.toml")
    assert [json.loads(line).keys() for line in again.stdout.splitlines()] == [{"t", "fields"}], again


def test_the_runs_of_a_command_are_recorded_one_after_another_and_the_first_is_a_case(tmp_path: Path) -> None:
    file = tmp_path / "outstation.toml"
    file.write_text(
        '[mqtt]\nurls = ["mqtt://127.0.0.1"]\n[[device]]\nname = "gauge"\ndriver = "exec"\ninterval = "50ms"\n'
        'command = ["printf", "21.5\\\\n"]\nformat = "scalar"\n'
    )
    recording = Recording(tmp_path / "gauge.jsonl", "gauge", "-c", file, "--max-bytes", "1kB")
    said = recording.process.communicate(timeout=30)[1]
    assert recording.process.returncode == 0, said
    entries = [json.loads(line) for line in recording.text().splitlines()[1:]]
    what = [entry.get("event") or entry.get("rx") for entry in entries]
    assert "".join(what).startswith("opened21.5\n\nlost" * 2), said  # a run ends its last line, if need be
    case = outstation("replay", recording.file, "--case", tmp_path / "case")
    assert case.returncode == 0, case.stderr
    check(Exec, tmp_path / "case")


def test_it_ends_by_size_and_by_time(device: PtyPort, tmp_path: Path) -> None:
    recording = Recording(tmp_path / "full.jsonl", device.path, "--max-bytes", "1kB")
    device.send(b"x" * 4000)
    assert recording.process.wait(20) == 66
    assert os.path.getsize(recording.file) <= 1000
    silent = outstation("record", device.path, "--seconds", "0.2", "-o", tmp_path / "silent.jsonl")
    assert silent.returncode == 66, "nothing came"
    assert "recorded 0 bytes" in silent.stderr


def test_a_full_disk_and_a_reader_that_has_gone_end_it(device: PtyPort) -> None:
    full = subprocess.Popen(
        [sys.executable, "-m", "agent", "record", device.path, "-o", "-"],
        cwd=ROOT,
        stdout=open("/dev/full", "w"),  # noqa: SIM115  (the child's)
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "No space left on device" in full.communicate(timeout=30)[1]
    assert full.returncode == 74
    reader, writer = os.pipe()
    os.close(reader)
    gone = subprocess.run(
        [sys.executable, "-m", "agent", "record", device.path, "-o", "-"],
        cwd=ROOT,
        stdout=writer,
        capture_output=False,
        stderr=subprocess.PIPE,
        text=True,
        timeout=30,
        check=False,
    )
    os.close(writer)
    assert gone.stderr == "recorded 0 bytes\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["record", "nobody", "-c", "{config}", "-o", "x"], "no device 'nobody'"),
        (["record", "weather", "-c", "{config}", "--baudrate", "9600", "-o", "x"], "--baudrate is for a PORT"),
        (["record", "usb:1", "-o", "x"], "write usb:VID:PID"),
        (["record", "/dev/null", "-o", "{config}"], "is there already"),
        (["record", "/dev/null", "-o", "x", "--max-bytes", "many"], "--max-bytes"),
        (["replay", "{config}"], "line 1: no JSON"),
        (["replay", "/nowhere"], "No such file"),
    ],
)
def test_what_is_wrong_is_told(device: PtyPort, tmp_path: Path, words: list[str], says: str) -> None:
    file = config(tmp_path, device)
    result = outstation(*(word.format(config=file) for word in words))
    assert result.returncode not in (0, 70)
    assert says in result.stderr
    assert "Traceback" not in result.stderr
