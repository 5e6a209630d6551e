"""Binary devices on a pty under the running agent: asked in turn, replugged, and in packets."""

from __future__ import annotations

from collections.abc import Callable

from agent.framing_packets import cobs_encode
from agent.testing import Outstation, PtyPort

# JBD battery management, communication protocol V4: its own examples to commands 03 and 04.
ASK_BASIC, ASK_CELLS = bytes.fromhex("dd a5 03 00 ff fd 77"), bytes.fromhex("dd a5 04 00 ff fc 77")
BASIC = bytes.fromhex(
    "dd 03 00 1b 17 00 00 00 02 d0 03 e8 00 00 20 78 00 00 00 00 00 00 10 48 03 0f 02 0b 76 0b 82 fb ff 77"
)
CELLS = bytes.fromhex(
    "dd 04 00 1e 0f 66 0f 63 0f 63 0f 64 0f 3e 0f 63 0f 37 0f 5b 0f 65 0f 3b 0f 63 0f 63 0f 3c 0f 66 0f 3d f9 f9 77"
)
BATTERY = {
    "name": "battery",
    "driver": "frames",
    "requests": [ASK_BASIC.hex(), ASK_CELLS.hex()],
    "interval": "50ms",
    "sync": "dd",
    "tail": "77",
    "length_at": 3,
    "length_add": 7,
    "check": "sum16-twos",
    "check_begin": 2,
    "id_at": 1,
    "fields": {
        "voltage": {"id": "03", "at": 4, "type": "u16", "scale": 0.01},
        "cell_1": {"id": "04", "at": 4, "type": "u16", "scale": 0.001},
    },
}


def test_a_battery_is_asked_in_turn_and_again_after_a_replug(
    serial_device: PtyPort, outstation_start: Callable[..., Outstation]
) -> None:
    serial_device.answer(ASK_BASIC, b"\xdd\x00" + BASIC)  # noise before the answer does not end the waiting
    serial_device.answer(ASK_CELLS, CELLS)
    outstation = outstation_start({"device": [{**BATTERY, "port": serial_device.path}]})
    turns = [{"voltage": 58.88}, {"cell_1": 3.942}]
    assert [reading.fields for reading in outstation.wait_readings("battery", 4)[:4]] == turns * 2
    serial_device.unplug()
    outstation.wait_offline("battery")
    before = len(outstation.readings("battery"))
    serial_device.replug()
    assert len(outstation.wait_readings("battery", before + 2)) >= before + 2


def test_json_in_cobs_packets(serial_device: PtyPort, outstation_start: Callable[..., Outstation]) -> None:
    board = {"name": "board", "driver": "lines", "format": "json", "ending": "cobs", "port": serial_device.path}
    outstation = outstation_start({"device": [board]})
    serial_device.send(cobs_encode(b'{"t":21.5}') + b"\x09\x00" + cobs_encode(b'{"t":22}'))
    assert [reading.fields for reading in outstation.wait_readings("board", 2)] == [{"t": 21.5}, {"t": 22}]
    outstation.wait_status(lambda status: status["devices"]["board"]["faults"].get("syntax"))
