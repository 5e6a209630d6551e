r"""Lines of text from a serial port: JSON objects, CSV, key=value pairs, a regular expression, or a bare number.

Device: anything that prints lines: microcontrollers, scales, weather stations, meters, modems.

Wire format: text lines ending in LF, CR LF or CR (``ending``). One line gives one reading, or one fault and no reading;
with ``partial = true`` a line in which single values are bad gives the others. Lines of white space alone are skipped.

- ``json``: an object, as RFC 8259 has it. ``{"bme":{"t":21.5,"raw":[7,9]}}`` gives bme_t, bme_raw_0, bme_raw_1. Values
  keep the type that they have; null is published as null. A number in quotes is a fault, unless the channel says
  ``type = "number"`` (it becomes one) or ``type = "text"``.
- ``csv``: ``columns`` names the cells in their order, ``""`` skips one; quotes as in RFC 4180. A line that holds the
  column names themselves is a header and skipped.
- ``kv``: ``t=21.5 h=44``; ``delimiter`` stands between pairs (default: white space), ``assign`` within them.
- ``regex``: ``pattern`` with named groups, found anywhere in the line. A group that took no part gives no field. It is
  Python's ``re``: a pattern with nested repetition, as ``(a+)+``, may take very long on a line that does not match.
- ``scalar``: one number a line. Its channel is the one declared, else ``value``.

In all but json a channel is a number unless it says otherwise, so that a garbled digit never turns it into text.

Who opens a port in the middle of a line reads its tail first. JSON, regex and mostly csv show that by themselves; for
others ``skip_first = true`` drops the first line after each opening.

Source: RFC 8259 (JSON), RFC 4180 (CSV).

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

import re
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from agent.driver import Channel, Context, Parser, Port, SerialConfig, StreamDriver
from agent.fields import ChannelSettings, FieldRules
from agent.fields_text import (
    Columns,
    Encoding,
    Escaped,
    LineFields,
    LineReader,
    NamedGroups,
    csv_fields,
    group_fields,
    json_fields,
    pair_fields,
    unescape,
    whole_line,
)
from agent.framing import ENDINGS, Ending, LineFramer
from agent.quantity import Size

OF_FORMAT: Final = {"columns": ("csv",), "delimiter": ("csv", "kv"), "assign": ("kv",), "pattern": ("regex",)}
"""Settings that only some formats have."""
NEEDED: Final = {"csv": "columns", "regex": "pattern"}


class LinesConfig(SerialConfig):
    """What a device that prints lines may say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["json", "csv", "kv", "regex", "scalar"] = Field(description="What a line looks like.")
    columns: Columns = Field(
        (), validate_default=True, description='csv: names of the cells in their order; "" skips one.'
    )
    delimiter: str = Field(
        "",
        max_length=8,
        description='csv, kv: what stands between fields; " " is any white space. Default for csv: ",".',
    )
    assign: str = Field("=", min_length=1, max_length=8, description="kv: what stands between name and value.")
    pattern: NamedGroups = Field(
        "", validate_default=True, description="regex: a regular expression with a named group for each channel."
    )
    channels: dict[str, ChannelSettings] = Field(
        {}, validate_default=True, description="What is known of channels, by their name on the wire."
    )
    others: Literal["keep", "drop"] = Field("keep", description="Fields that do not stand in channels.")
    partial: bool = Field(False, description="Publish the good values of a line in which single ones are bad.")
    skip_first: bool = Field(False, description="Drop the first line after opening: it may be the tail of one.")
    ending: Ending = Field("any", description="How lines end; any: LF, CR LF or CR.")
    encoding: Encoding = Field(
        "utf-8", description="Encoding of the text: any that Python knows and that extends ASCII."
    )
    ignore: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="Lines that begin with one of these are skipped: comments, prompts."
    )
    longest: Size = Field(4096, ge=16, le=1 << 20, description="Longest line in bytes; a longer one is a fault.")
    wakeup: Escaped = Field(
        "", max_length=1024, description=r"Sent after each opening; \r \n \t \0 \e \xHH stand for control bytes."
    )

    @field_validator("columns", "delimiter", "assign", "pattern")
    @classmethod
    def _of_format(cls, value: Any, info: ValidationInfo) -> Any:
        wanted, name = info.data.get("format"), str(info.field_name)
        if value and wanted is not None and wanted not in OF_FORMAT[name]:
            raise ValueError(f"only for format = {' or '.join(OF_FORMAT[name])}")
        if not value and NEEDED.get(wanted or "") == name:
            raise ValueError(f'format = "{wanted}" needs it')
        return value

    @field_validator("channels")
    @classmethod
    def _known(cls, channels: dict[str, ChannelSettings], info: ValidationInfo) -> dict[str, ChannelSettings]:
        known = {"csv": info.data.get("columns"), "regex": re.compile(info.data.get("pattern", "")).groupindex}
        names = known.get(info.data.get("format", ""))
        if names and (strange := [wire for wire in channels if wire not in names]):
            raise ValueError(f"not on the wire: {', '.join(strange)}; there are {', '.join(filter(None, names))}")
        if info.data.get("format") == "scalar" and len(channels) > 1:
            raise ValueError('format = "scalar" has one channel')
        wires = [*filter(None, info.data.get("columns", ())), *channels]
        FieldRules({wire: channels.get(wire, ChannelSettings()) for wire in wires}, default="auto")
        return channels

    @field_validator("ignore")
    @classmethod
    def _encodable(cls, ignore: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        for prefix in ignore:
            prefix.encode(info.data.get("encoding", "utf-8"))
        return ignore

    def wires(self) -> list[str]:
        """Names on the wire, as far as they are known before the first line."""
        named = [*filter(None, self.columns), *re.compile(self.pattern).groupindex, *self.channels]
        return list(dict.fromkeys(named or (["value"] if self.format == "scalar" else [])))


class LineParser(LineReader, Parser):
    """Lines to samples: one Sample or one Fault a line."""

    def __init__(self, config: LinesConfig) -> None:
        self._config = config
        super().__init__(
            LineFramer(ENDINGS[config.ending], config.longest),
            take_apart(config),
            FieldRules(
                config.channels,
                default="auto" if config.format == "json" else "number",
                others=config.others == "keep",
            ),
            ignore=tuple(prefix.encode(config.encoding) for prefix in config.ignore),
            skip_first=config.skip_first,
            partial=config.partial,
        )

    def __reduce__(self) -> Any:
        """Into another process (``workers.kind``): made anew, with what it has of a line and has learnt of names."""
        return (
            type(self),
            (self._config,),
            {"_framer": self._framer, "_rules": self._rules, "_skip_first": self._skip_first},
        )


def take_apart(config: LinesConfig) -> LineFields:
    """What finds the fields in a line of the configured format."""
    encoding = config.encoding
    delimiter = None if config.delimiter == " " else config.delimiter or None
    match config.format:
        case "json":
            return json_fields(encoding)
        case "csv":
            return csv_fields(config.columns, delimiter if config.delimiter else ",", encoding)
        case "kv":
            return pair_fields(delimiter, config.assign, encoding)
        case "regex":
            return group_fields(config.pattern, encoding)
        case "scalar":
            return whole_line(config.wires()[0], encoding)


class Lines(StreamDriver):
    """Lines of text from a serial port: JSON, CSV, key=value, regular expression or bare numbers."""

    Config = LinesConfig

    def __init__(self, config: LinesConfig, ctx: Context) -> None:
        super().__init__(config, ctx)
        known = config.channels
        self.channels = tuple(known[wire].channel(wire) if wire in known else Channel(wire) for wire in config.wires())

    def parser(self) -> Parser:
        return LineParser(self.config)

    def start(self, port: Port | None) -> None:
        super().start(port)
        if port is not None and self.config.wakeup:
            port.write(unescape(self.config.wakeup))
