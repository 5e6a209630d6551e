"""`outstation probe` on ptys: what sends is recognised, and the configuration that it prints passes `check`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.cli_probing import LINES, listing, stable, table
from agent.config import load
from agent.ports_list import SerialDevice, UsbIdentity
from agent.recognise import modbus, modbus_question, recognise
from agent.registry import discover
from agent.testing import PtyPort
from agent.testing.cases import wire_bytes
from agent.testing.toml import dumps

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests" / "cases"
SENT = {
    "nmea": wire_bytes(CASES / "nmea" / "mtk-3329"),
    "p1": wire_bytes(CASES / "p1" / "dsmr-5"),
    "pms5003": wire_bytes(CASES / "pms5003" / "capture"),
    "sds011": wire_bytes(CASES / "sds011" / "capture"),
    "sml": wire_bytes(sorted((CASES / "sml").glob("*"))[0]),
    "json": b'{"t": 21.5}\n' * 3,
    "csv": b"1,2\n" * 5,
    "kv": b"\nt:1;h:2\nt:1;h:2;\nt:2;h:3\n",
    "scalar": b"1\n" * 5,
}


@pytest.fixture
def device() -> Iterator[PtyPort]:
    with PtyPort() as device:
        yield device


def probe(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "agent", "probe", *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def checked(folder: Path, toml: str) -> list[Any]:
    """The devices of a configuration with what was printed pasted into it."""
    file = folder / "outstation.toml"
    file.write_text(f'[mqtt]\nurls = ["mqtt://127.0.0.1"]\n{toml}')
    return [device.config for device in load(file, discover()).devices]


@pytest.mark.parametrize("kind", SENT)
def test_what_sends_is_recognised_and_its_configuration_is_good(device: PtyPort, tmp_path: Path, kind: str) -> None:
    running = probe(device.path, "--seconds", 20)  # ends as soon as it knows
    device.send(SENT[kind])
    out, err = running.communicate(timeout=40)
    assert running.returncode == 0, out + err
    (config,) = checked(tmp_path, out)
    assert config.driver == kind or (config.driver, config.format) == ("lines", kind)
    assert (config.port, config.baudrate) == (device.path, 9600)
    assert "at 9600 baud, 8N1" in out


def test_two_ports_at_once_get_two_names(device: PtyPort, tmp_path: Path) -> None:
    with PtyPort() as second:
        running = probe(device.path, second.path, "--seconds", 20)
        device.send(SENT["nmea"])
        second.send(SENT["nmea"])
        out, _ = running.communicate(timeout=40)
    assert [config.name for config in checked(tmp_path, out)] == ["gps", "gps_2"]


def test_modbus_is_asked_for_only_when_told_to(device: PtyPort, tmp_path: Path) -> None:
    device.answer(modbus_question(3), bytes.fromhex("03 83 02 61 31"))
    quiet = probe(device.path, "--baudrate", 9600, "--seconds", 0.1)
    out, _ = quiet.communicate(timeout=40)
    assert quiet.returncode == 1
    assert re.search(r"^#   nothing came", out, re.MULTILINE)
    assert not device.received
    asking = probe(device.path, "--baudrate", 9600, "--seconds", 0.1, "--active")
    out, err = asking.communicate(timeout=40)
    assert asking.returncode == 0, out + err
    assert tomllib.loads(out)["device"][0]["unit"][0]["address"] == 3
    if "modbus" in discover().names:
        (config,) = checked(tmp_path, out)
        assert config.driver == "modbus"


def test_what_is_not_recognised_is_shown_and_a_port_that_does_not_open_says_why(device: PtyPort) -> None:
    running = probe(device.path, "/nowhere/ttyX", "--baudrate", 115200, "--seconds", 1)
    device.send(b"READY\r\nHello, World\r\n")
    out, _ = running.communicate(timeout=40)
    assert running.returncode == 1
    assert "115200 baud, 8N1: text that is none of these: 'Hello, World'" in out
    assert "#   /nowhere/ttyX does not exist" in out
    assert tomllib.loads(out) == {}, "all of it comments"


def test_a_name_that_is_none_is_told() -> None:
    running = probe("usb:1")
    assert "write usb:VID:PID" in running.communicate(timeout=40)[1]
    assert running.returncode == 2


def test_every_guess_makes_a_good_configuration(tmp_path: Path) -> None:
    guesses = [*filter(None, map(recognise, SENT.values())), modbus([1, 7])]
    assert len(guesses) == len(SENT) + 1
    taken: set[str] = set()
    for guess in guesses:
        for line in LINES:
            made = table(guess, line, "/dev/null", taken)
            if guess.driver in discover().names:
                (config,) = checked(tmp_path, dumps({"device": [made]}))
                assert (config.baudrate, config.bytesize, config.parity) == line


def test_a_listing_says_what_is_behind_a_port_and_who_has_it(device: PtyPort) -> None:
    node = os.path.realpath(device.path)
    usb = UsbIdentity("0403", "6001", "A50285BI", "00", "FT232R USB UART", "FTDI")
    found = SerialDevice(node, "ftdi_sio", usb, ("/dev/serial/by-id/usb-FTDI",))
    fd = os.open(node, os.O_RDWR | os.O_NOCTTY)
    lines = list(listing([found]))
    os.close(fd)
    assert lines[:2] == [
        f"{node}  usb:0403:6001:A50285BI  FTDI FT232R USB UART  (ftdi_sio)",
        "    /dev/serial/by-id/usb-FTDI",
    ]
    assert any(f"(pid {os.getpid()})" in line for line in lines[2:])
    assert list(listing([])) == ["There is no serial port with hardware behind it here."]


def test_a_configuration_gets_a_name_that_stays() -> None:
    usb = UsbIdentity("0403", "6001", "A5", "00", "", "")
    one = SerialDevice("/dev/ttyUSB0", "", usb, ("/dev/serial/by-id/a",))
    twin = SerialDevice("/dev/ttyUSB1", "", usb, ("/dev/serial/by-id/b",))
    plain = SerialDevice("/dev/ttyAMA0", "", None, ())
    assert stable("/dev/ttyUSB0", [one, plain]) == "usb:0403:6001:A5"
    assert stable("/dev/ttyUSB1", [one, twin]) == "/dev/serial/by-id/b"
    assert stable("/dev/ttyAMA0", [one, plain]) == "/dev/ttyAMA0"
    assert stable("/dev/other", [one]) == "/dev/other"
