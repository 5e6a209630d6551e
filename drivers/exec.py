r"""A command: what it prints, line by line, run once an interval or all the time.

Device: any program that prints readings: ``vcgencmd``, ``sensors``, ``rtl_433``, a script of your own.

Wire format: lines of text on its standard output, in the formats of the driver ``lines``: ``json``, ``csv``, ``kv``,
``regex``, ``scalar``. With ``whole = true`` all that one run prints is one line, whatever line breaks are in it.

With ``interval`` the command runs so often and ends by itself. It is given ``timeout``; then it and its process group
get SIGTERM, and 2 s later SIGKILL. The last line of a run needs no ending, unless the run failed. Without ``interval``
the command runs for as long as the device is wanted, and is started again, ever more slowly, when it ends.

A run that ends with another status than 0, or by a signal, is the fault ``exit``, whose detail is the status and the
last line of its standard error; one that is late is ``timeout``. What was printed before counts.

No shell reads ``command``; who wants one says ``shell``. The command gets nothing on its standard input, and of the
agent's environment PATH, HOME, USER, LOGNAME, LANG, LC_ALL, TZ and TMPDIR, as the broker's password may stand in the
rest. It runs as the agent's user in the agent's sandbox. When the device stops, its process group is killed (SIGKILL);
a process that leaves the group is on its own.

Source: setsid(2), pidfd_open(2), kill(2).

Sample::

    [[device]]
    name = "firmware"
    driver = "exec"
    command = ["vcgencmd", "measure_temp"]
    interval = "30s"
    timeout = "5s"
    format = "regex"
    pattern = "temp=(?P<temperature>[-0-9.]+)"

    [device.channels.temperature]
    unit = "°C"
    device_class = "temperature"
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from agent.driver import Context, DeviceConfig, DeviceLost, Done, Driver, Fault, Parser, Port
from agent.driver_child import CommandConfig, Runs
from agent.driver_lines import LineFormat, LineParser
from agent.framing import ENDINGS
from agent.ports_child import ChildPort
from agent.quantity import Interval

WHOLE: Final = b"\0"
"""Ends the output of a run that is one line: a byte that no text has."""


class ExecConfig(CommandConfig, LineFormat, DeviceConfig):
    """What is run, when, and what it prints."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    interval: Interval | None = Field(None, description="Time between two runs; without it the command runs on.")
    timeout: Interval | None = Field(None, description="Time that a run may take; default: the interval.")
    whole: bool = Field(False, description="All that a run prints is one line.")

    @field_validator("timeout", "whole")
    @classmethod
    def _of_runs(cls, value: Any, info: ValidationInfo) -> Any:
        if value and info.data.get("interval") is None:
            raise ValueError("only for a command with an interval; one that runs on has no end to wait for")
        if info.field_name == "timeout" and value is not None and value > info.data["interval"]:
            raise ValueError("longer than the interval: the next run would find this one still at work")
        if info.field_name == "whole" and value and info.data.get("format") == "csv":
            raise ValueError('format = "csv" is of lines; whole is for json, kv, regex and scalar')
        return value


class Exec(Driver):
    """A command, run once an interval or all the time: what it prints, line by line."""

    Config = ExecConfig

    def __init__(self, config: ExecConfig, ctx: Context) -> None:
        super().__init__(config, ctx)
        self.channels = config.line_channels()

    def parser(self) -> Parser:
        """A new parser, for one run."""
        return LineParser(self.config, ending=WHOLE if self.config.whole else None)

    def open(self) -> ChildPort | None:
        return None if self.config.interval else self._start()

    def start(self, port: Port | None) -> None:
        self._runs: Runs | None = None
        if port is not None:
            self.ctx.stream(port, self.parser(), on_end=self._over)
            return
        interval = self.config.interval
        self._runs = Runs(self.ctx, self._start, self.parser, limit=self.config.timeout or interval)
        self.ctx.every(interval, self._runs.begin, first_after=0.0, name="run")

    def read_now(self, done: Done) -> None:
        if self._runs is None:
            super().read_now(done)
        else:
            self._runs.read_now(done)

    def stop(self) -> None:
        if self._runs is not None:
            self._runs.stop()

    def _start(self) -> ChildPort:
        """On a worker: fork and execute."""
        config: ExecConfig = self.config
        return config.run(self.ctx, WHOLE if config.whole else ENDINGS[config.ending] or b"\n")

    def _over(self, end: DeviceLost) -> None:
        """The command that should run on has ended."""
        self.ctx.emit(Fault("exit", str(end)))
        self.ctx.lost(str(end))
