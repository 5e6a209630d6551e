"""Binary frames of any device, by configuration: sync bytes, size, check, fields by offset and type.

Device: whatever sends or answers in frames of its own: battery managements, meters, lidars, microcontrollers.

Wire format: ``framing`` says how frames are told apart.

- ``sync``: they begin with ``sync``, end with ``tail``, and are of one ``size`` or tell it in a field (``length_at``,
  ``length_type``, ``length_add``). After noise, and after what only looked like a frame, the search goes on one byte
  further. Without ``sync`` the ``check`` alone has to find them.
- ``slip`` (RFC 1055), ``cobs`` (zero-terminated): each packet is a frame. All of the above may be said of its payload.

``check`` is a CRC by its name in the RevEng catalogue (reveng.sourceforge.io/crc-catalogue), in small letters or
capitals: crc-8, crc-8/maxim-dow, crc-16/modbus, crc-16/ccitt-false, crc-16/kermit, crc-16/xmodem, crc-32, crc-32c ...;
or a sum of bytes: sum8, sum8-ones (its complement), sum8-twos (all bytes with it add up to 0), sum16, sum16-twos, xor8,
fletcher-16, fletcher-16/ubx.

Offsets count from the first byte of the frame, sync included, from 0; negative ones of a field from where check and
tail begin, those of the check from the frame's end. A device that sends frames of several kinds has ``id_at``, and its
fields have an ``id``; frames of other kinds are skipped.

One frame is one reading, or one fault and no reading. With ``requests`` the device is asked, each ``interval`` with the
next of them, and what it sends unasked is not read. They are sent as they are, check included (in ``slip`` and ``cobs``
as a packet).

Source: RFC 1055 (SLIP); S. Cheshire and M. Baker, Consistent Overhead Byte Stuffing, 1999 (COBS). Sample: JBD battery
management, communication protocol V4, commands 03 and 04.

Sample::

    [[device]]
    name = "battery"
    driver = "frames"
    port = "/dev/serial/by-id/usb-FTDI_FT232R_USB_UART_AC2F17KR-if00-port0"
    requests = ["DD A5 03 00 FF FD 77", "DD A5 04 00 FF FC 77"]
    interval = "5s"
    sync = "DD"
    tail = "77"
    length_at = 3
    length_add = 7
    check = "sum16-twos"
    check_begin = 2
    id_at = 1

    [device.fields.voltage]
    id = "03"
    at = 4
    type = "u16"
    scale = 0.01
    unit = "V"
    device_class = "voltage"

    [device.fields.charge_switch]
    id = "03"
    at = 24
    type = "u8"
    bit = 0

    [device.fields.cell_1]
    id = "04"
    at = 4
    type = "u16"
    scale = 0.001
    unit = "V"
"""

from __future__ import annotations

from pydantic import ConfigDict, Field

from agent.driver import Context, Parser, PollConfig, PollDriver, Port
from agent.driver_frames import FrameFormat, FrameParser
from agent.fields_binary import Hex


class FramesConfig(FrameFormat, PollConfig):
    """What a device that sends frames may say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests: tuple[Hex, ...] = Field(
        (),
        max_length=64,
        description="What to ask with, in hex: one each interval, in turn. Default: it sends by itself.",
    )
    wakeup: Hex = Field("", description="Sent after each opening, in hex.")


class Frames(PollDriver):
    """Binary frames of any device by configuration: sync, size, check, fields; also in SLIP and COBS packets."""

    Config = FramesConfig

    def __init__(self, config: FramesConfig, ctx: Context) -> None:
        super().__init__(config, ctx)
        self.channels = config.frame_channels()
        self._turn = 0

    def parser(self) -> Parser:
        return FrameParser(self.config, answer=bool(self.config.requests))

    def request(self) -> bytes:
        asked = bytes.fromhex(self.config.requests[self._turn])
        self._turn = (self._turn + 1) % len(self.config.requests)
        return bytes(self.config.packed(asked))

    def start(self, port: Port | None) -> None:
        assert port is not None
        if self.config.wakeup:
            port.write(self.config.packed(bytes.fromhex(self.config.wakeup)))
        if self.config.requests:
            super().start(port)
        else:
            self.ctx.stream(port, self.parser())
