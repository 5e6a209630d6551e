"""A file that grows, as a log: each line that is written to it, over its rotation.

Device: any program that appends lines to a file.

Wire format: lines of text, in the formats of the driver ``lines``: ``json``, ``csv``, ``kv``, ``regex``, ``scalar``.

Lines are noticed as they are written (inotify); nothing polls. A file that is renamed and replaced is read to its end
before its successor is begun, one that is truncated is read anew from its beginning; half a line at the end of either
is the fault ``cut``. A file that is not there yet is waited for, and then read from its beginning.

``begin = "end"`` passes over what stands in the file when the agent (or this device) starts, ``"beginning"`` reads it.
No place is kept on disk: after a restart, lines written meanwhile are passed over by the one, and lines read before
are read again by the other. A network file system tells nothing of what is written elsewhere. One device a file.

Source: inotify(7); logrotate(8) on ``create`` and ``copytruncate``.

Sample::

    [[device]]
    name = "inverter"
    driver = "tail"
    path = "/var/log/inverter/data.csv"
    format = "csv"
    columns = ["", "power", "energy"]

    [device.channels.power]
    unit = "W"
    device_class = "power"
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator

from agent.driver import Context, DeviceConfig, DeviceLost, Parser, Port, PortError, StreamDriver
from agent.driver_lines import LineFormat, LineParser
from agent.ports_tail import Rotated, open_tail


class TailConfig(LineFormat, DeviceConfig):
    """Which file is read, from where, and what stands in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(description="The whole path of the file.")
    begin: Literal["end", "beginning"] = Field("end", description="Where to begin in a file that is there already.")

    @field_validator("path")
    @classmethod
    def _whole(cls, path: str) -> str:
        if not path.startswith("/") or path.endswith("/") or "\0" in path:
            raise ValueError("give the whole path of the file, as /var/log/data.csv")
        return path


class Tail(StreamDriver):
    """A file that grows, as a log: each line that is written to it, over its rotation."""

    Config = TailConfig

    def __init__(self, config: TailConfig, ctx: Context) -> None:
        super().__init__(config, ctx)
        self.channels = config.line_channels()
        self._awaited = False

    @classmethod
    def shares(cls, config: Any) -> str | None:
        return str(config.path)

    def parser(self) -> Parser:
        return LineParser(self.config)

    def open(self) -> Port:
        at_end = self.config.begin == "end" and not self._awaited
        try:
            return self.ctx.open_port(self.config.path, open_tail, self.config.path, at_end)
        except PortError as error:
            self._awaited = self._awaited or error.reason == "missing"  # all that it will hold is new
            raise

    def start(self, port: Port | None) -> None:
        self._awaited = False
        self._read(port, self.parser())

    def _read(self, port: Port | None, parser: Parser) -> None:
        assert port is not None, "open() gives a port"

        def ended(end: DeviceLost) -> None:
            if not isinstance(end, Rotated):
                raise end
            whole = self.config.model_copy(update={"skip_first": False})  # a new file begins with a line
            self._read(port, LineParser(whole))

        self.ctx.stream(port, parser, on_end=ended)
