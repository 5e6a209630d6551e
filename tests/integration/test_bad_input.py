"""Bad input and bad ports, seen from the broker: what is wrong is counted and shown, and the next good line is read."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.testing import PtyPort
from agent.testing.outstation import Outstation

Start = Callable[..., Outstation]
MakeDevice = Callable[..., PtyPort]

BAD = [
    (b'{"t":"\xff"}', "encoding"),
    (b'{"t":21', "syntax"),  # the second half never comes
    (b"x" * 10_000, "too_long"),
    (b'{"t":NaN}', "number"),
    (b'{"t":-inf}', "number"),
    (b'{"t":"21.5"}', "number"),
    (b'{"t":1,"t":2}', "duplicate_key"),
    (b'{"a b":1,"a_b":2}', "topic"),
    (b"\x00\xff\x1b[2J", "encoding"),
]


def test_every_bad_line_is_a_counted_fault_with_its_bytes_and_every_good_one_a_reading(
    outstation_make_device: MakeDevice, outstation_start: Start
) -> None:
    json_device, csv_device = outstation_make_device(), outstation_make_device()
    outstation = outstation_start(
        {
            "device": [
                {"name": "json", "driver": "lines", "port": json_device.path, "format": "json"},
                {"name": "csv", "driver": "lines", "port": csv_device.path, "format": "csv", "columns": ["t", "h"]},
            ]
        }
    )
    for n, (line, _) in enumerate(BAD):
        json_device.write(line + b'\n{"t":%d}\r\n' % n)
    csv_device.write(b"1,2\n1,2,3\n1\n1,two\n1,nan\n3,4\n")
    assert [outstation.next_reading("json").fields for _ in BAD] == [{"t": n} for n in range(len(BAD))]
    assert [outstation.next_reading("csv").fields for _ in range(2)] == [{"t": 1, "h": 2}, {"t": 3, "h": 4}]

    def faults(status: dict[str, Any], device: str) -> dict[str, int]:
        return {kind: fault["count"] for kind, fault in status["devices"][device]["faults"].items()}

    status = outstation.wait_status(lambda status: status["devices"]["csv"]["faults"])
    kinds = [kind for _, kind in BAD]
    assert faults(status, "json") == {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    assert faults(status, "csv") == {"columns": 2, "number": 2}
    shown = status["devices"]["json"]["faults"]
    assert shown["duplicate_key"]["bytes"] == '{"t":1,"t":2}'
    assert shown["too_long"]["bytes"] == "x" * 64
    assert shown["encoding"]["bytes"] == r"\x00\xff\x1b[2J"
    assert 'say type = "number" or type = "text"' in shown["number"]["last"]
    assert "\x1b" not in outstation.log


def test_ports_that_do_not_open_are_named_with_the_reason_and_taken_when_they_can_be(
    outstation_make_device: MakeDevice, outstation_start: Start, tmp_path: Path
) -> None:
    busy = outstation_make_device()
    holder = os.open(busy.path, os.O_RDWR | os.O_NOCTTY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    fine = outstation_make_device()
    ports = {
        "fine": fine.path,
        "busy": busy.path,
        "missing": str(tmp_path / "ttyUSB0"),
        "file": "/dev/null",
        "url": "spy:///dev/null",
    }
    devices = [{"name": name, "driver": "lines", "port": port, "format": "json"} for name, port in ports.items()]
    outstation = outstation_start({"device": devices}, wait=False)
    try:
        outstation.wait_online("fine")
        status = outstation.wait_status(
            lambda status: all(status["devices"][name]["state"] == "waiting" for name in ports if name != "fine")
        )
        reasons = {name: status["devices"][name]["reason"] for name in ports}
        assert reasons["fine"] is None
        assert f"(pid {os.getpid()})" in reasons["busy"]
        assert "does not exist" in reasons["missing"]
        assert "is not a serial port" in reasons["file"]
        assert "socket://host:port" in reasons["url"]
        fine.send('{"t":1}')
        assert outstation.next_reading("fine").fields == {"t": 1}
        assert "Traceback" not in outstation.log
    finally:
        os.close(holder)
    outstation.wait_online("busy")
    busy.send('{"t":2}')
    assert outstation.next_reading("busy").fields == {"t": 2}
