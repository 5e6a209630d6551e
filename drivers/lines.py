r"""Lines of text from a serial port: JSON objects, CSV, key=value pairs, a regular expression, or a bare number.

Device: anything that prints lines: microcontrollers, scales, weather stations, meters, modems.

Wire format: text lines ending in LF, CR LF or CR, or each in a packet of SLIP or COBS (``ending``). One line gives one
reading, or one fault and no reading; with ``partial = true`` a line in which single values are bad gives the others.
Lines of white space alone are skipped.

- ``json``: an object, as RFC 8259 has it. ``{"bme":{"t":21.5,"raw":[7,9]}}`` gives bme_t, bme_raw_0, bme_raw_1. Values
  keep the type that they have; null is published as null. A number in quotes is a fault, unless the channel says
  ``type = "number"`` (it becomes one) or ``type = "text"``.
- ``csv``: ``columns`` names the cells in their order, ``""`` skips one; quotes as in RFC 4180. A line that holds the
  column names themselves is a header and skipped.
- ``kv``: ``t=21.5 h=44``; ``delimiter`` stands between pairs (default: white space), ``assign`` within them.
- ``regex``: ``pattern`` with named groups, found anywhere in the line. A group that took no part gives no field. It is
  RE2's syntax, so without look-around and back-references: no line takes long, whatever the pattern. Needs the extra
  ``re2`` (``pip install google-re2``).
- ``scalar``: one number a line. Its channel is the one declared, else ``value``.

In all but json a channel is a number unless it says otherwise, so that a garbled digit never turns it into text.

Who opens a port in the middle of a line reads its tail first. JSON, regex and mostly csv show that by themselves; for
others ``skip_first = true`` drops the first line after each opening.

Source: RFC 8259 (JSON), RFC 4180 (CSV), RFC 1055 (SLIP).

Sample::

    [[device]]
    name = "weather"
    driver = "lines"
    port = "/dev/serial/by-id/usb-Arduino__www.arduino.cc__0043_75834353930351E0C1B1-if00"
    baudrate = 115200
    format = "csv"
    columns = ["temperature", "humidity", "", "battery"]
    ignore = ["#"]
    wakeup = '\x05\r\n'

    [device.channels.temperature]
    unit = "°C"
    low = -40
    high = 85
    device_class = "temperature"

    [device.channels.battery]
    unit = "V"
    scale = 0.001
"""

from __future__ import annotations

from pydantic import ConfigDict, Field

from agent.driver import Context, Parser, Port, SerialConfig, StreamDriver
from agent.driver_lines import LineFormat, LineParser
from agent.fields_text import Escaped, unescape

__all__ = ["LineParser", "Lines", "LinesConfig"]


class LinesConfig(LineFormat, SerialConfig):
    """What a device that prints lines may say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    wakeup: Escaped = Field(
        "", max_length=1024, description=r"Sent after each opening; \r \n \t \0 \e \xHH stand for control bytes."
    )


class Lines(StreamDriver):
    """Lines of text from a serial port: JSON, CSV, key=value, regular expression or bare numbers."""

    Config = LinesConfig

    def __init__(self, config: LinesConfig, ctx: Context) -> None:
        super().__init__(config, ctx)
        self.channels = config.line_channels()

    def parser(self) -> Parser:
        return LineParser(self.config)

    def start(self, port: Port | None) -> None:
        super().start(port)
        if port is not None and self.config.wakeup:
            port.write(unescape(self.config.wakeup))
