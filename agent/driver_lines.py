"""Lines of text as settings and as a parser: what every driver shares whose source gives lines.

A driver's configuration takes ``LineFormat`` in, and its ``parser()`` gives a ``LineParser`` of it::

    class GadgetConfig(LineFormat, SerialConfig): ...

    class Gadget(StreamDriver):
        def parser(self) -> Parser:
            return LineParser(self.config)
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from agent.driver import Channel, Parser
from agent.fields import ChannelSettings, FieldRules
from agent.fields_pattern import group_names
from agent.fields_text import (
    Columns,
    Encoding,
    LineFields,
    LineReader,
    NamedGroups,
    csv_fields,
    group_fields,
    json_fields,
    pair_fields,
    whole_line,
)
from agent.framing import ENDINGS, Ending, LineFramer
from agent.framing_packets import PacketFramer
from agent.quantity import Size

OF_FORMAT: Final = {"columns": ("csv",), "delimiter": ("csv", "kv"), "assign": ("kv",), "pattern": ("regex",)}
"""Settings that only some formats have."""
NEEDED: Final = {"csv": "columns", "regex": "pattern"}


class LineFormat(BaseModel):
    """What the configuration may say of lines."""

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
        "", validate_default=True, description="regex: a regular expression (RE2) with a named group for each channel."
    )
    channels: dict[str, ChannelSettings] = Field(
        {}, validate_default=True, description="What is known of channels, by their name on the wire."
    )
    others: Literal["keep", "drop"] = Field("keep", description="Fields that do not stand in channels.")
    partial: bool = Field(False, description="Publish the good values of a line in which single ones are bad.")
    skip_first: bool = Field(False, description="Drop the first line after opening: it may be the tail of one.")
    ending: Ending = Field(
        "any", description="How lines end; any: LF, CR LF or CR; slip, cobs: each such packet is a line."
    )
    encoding: Encoding = Field(
        "utf-8", description="Encoding of the text: any that Python knows and that extends ASCII."
    )
    ignore: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="Lines that begin with one of these are skipped: comments, prompts."
    )
    longest: Size = Field(4096, ge=16, le=1 << 20, description="Longest line in bytes; a longer one is a fault.")

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
        columns, pattern = info.data.get("columns"), info.data.get("pattern")
        names = group_names(pattern) if pattern else columns
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

    def line_channels(self) -> tuple[Channel, ...]:
        """The channels that are known before the first line."""
        known = self.channels
        return tuple(known[wire].channel(wire) if wire in known else Channel(wire) for wire in self.wires())

    def wires(self) -> list[str]:
        """Names on the wire, as far as they are known before the first line."""
        named = [*filter(None, self.columns), *(group_names(self.pattern) if self.pattern else ()), *self.channels]
        return list(dict.fromkeys(named or (["value"] if self.format == "scalar" else [])))


class LineParser(LineReader, Parser):
    """Lines to samples: one Sample or one Fault a line."""

    def __init__(self, config: LineFormat, *, ending: bytes | None = None) -> None:
        """ending: what ends a line, whatever the configuration says of it."""
        self._config = config
        super().__init__(
            framer(config, ending),
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


def framer(config: LineFormat, ending: bytes | None) -> LineFramer | PacketFramer:
    """What splits the stream into lines; ending: what ends one, whatever the configuration says of it."""
    if ending is None and (config.ending == "slip" or config.ending == "cobs"):
        return PacketFramer(config.ending, config.longest)
    return LineFramer(ending or ENDINGS[config.ending], config.longest)


def take_apart(config: LineFormat) -> LineFields:
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
