"""Meters with an optical or current-loop interface that speak IEC 62056-21 (IEC 1107, "D0"): electricity, heat.

Device: Landis+Gyr, Iskra, Elster, EMH, Itron and others that are asked (modes A to C); EasyMeter, eBZ, Hager and others
that send by themselves (mode D, and meters of the same form at other speeds: ``mode = "push"``).

Wire format: lines of data sets "code(value*unit)", 7E1. Asked: at 300 baud "/?!" or "/?address!"; the meter answers
"/XXXZ...", where Z offers a speed; "ACK 0 Z 0" takes it (mode C; in mode B, Z is a letter, the meter goes on at its
speed unasked, in mode A at 300 baud); then STX, data, "!", ETX and the exclusive or of all behind STX. By itself:
"/XXXZ...", data and "!", without a check: a line that is no data set then spoils the whole. What comes first is the
tail of a readout, and skipped. A readout of 1 kB takes half a minute at 300 baud.

Some battery meters sleep: ``wakeup = true`` sends two seconds of NUL first. Heads that echo what is sent do no harm. A
serial server of raw TCP (socket://) cannot change its speed: there ``fast = false`` has the meter stay at the first
one. A meter that sends by itself mostly does so at 9600 baud: ``baudrate = 9600``, and some with 8N1.

One readout is one reading. Energy is in kWh, power in W. Registers without a unit (serial numbers, clocks) and those of
past billing periods ("1.8.0*01") are not read.

Source: IEC 62056-21:2002, sections 6.3 to 6.5 and annexes A to C (EN 61107).

Sample::

    [[device]]
    name = "meter"
    driver = "d0"
    port = "/dev/serial/by-id/usb-Silicon_Labs_CP2104_USB_to_UART_Bridge_Controller_01A2B3C4-if00-port0"
    interval = "5m"
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, cast

from pydantic import ConfigDict, Field, model_validator

from agent.driver import Channel, Context, Done, Driver, Fault, Parser, Port, Sample, SerialConfig, SerialLine
from agent.driver_readout import Asking
from agent.iec62056 import Readout, ReadoutFramer
from agent.obis import MeterSettings, named
from agent.quantity import Interval


class D0Config(SerialConfig, MeterSettings):
    """What a meter that speaks IEC 62056-21 may say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["ask", "push"] = Field("ask", description="Whether the meter is asked, or sends by itself.")
    baudrate: int = Field(300, ge=50, le=12_000_000, description="Bits per second at first; push: mostly 9600.")
    bytesize: Literal[5, 6, 7, 8] = Field(7, description="Data bits.")
    parity: Literal["none", "even", "odd", "mark", "space"] = Field("even", description="Parity bit.")
    interval: Interval = Field(60.0, description="Seconds between two questions.")
    answer_timeout: Interval = Field(5.0, description="Seconds of silence after which a readout is given up.")
    address: str = Field(
        "", pattern=r"^[0-9A-Za-z ]*$", max_length=32, description="Of the meter, where several listen."
    )
    fast: bool = Field(True, description="Take the speed that the meter offers.")
    wakeup: bool = Field(False, description="Send two seconds of NUL before the question: battery meters.")

    @model_validator(mode="after")
    def _can_switch(self) -> D0Config:
        if self.mode == "ask" and self.fast and self.port.lower().startswith("socket://"):
            raise ValueError("a port behind socket:// cannot change its speed: say fast = false, or use rfc2217://")
        return self

    def readout(self, readout: Readout) -> list[Sample | Fault]:
        """What a readout says, of what is to be published."""
        return self.reading(readout.lines, named, checked=readout.checked)


class D0Parser(Parser):
    """Bytes to readouts: one Sample each."""

    def __init__(self, config: D0Config) -> None:
        self._config = config
        self._framer = ReadoutFramer()

    def feed(self, data: bytes) -> Iterable[Sample | Fault]:
        items: list[Sample | Fault] = []
        for readout in self._framer.feed(data):
            if isinstance(readout, Fault):
                items.append(readout)
            else:
                items += self._config.readout(readout)
        return items

    def end(self) -> Iterable[Sample | Fault]:
        return self._framer.end()


class D0(Driver):
    """Meters that speak IEC 62056-21 (D0, IEC 1107), asked or by themselves."""

    Config = D0Config

    def __init__(self, config: D0Config, ctx: Context) -> None:
        super().__init__(config, ctx)
        self.channels: tuple[Channel, ...] = config.channels()
        self._asking: Asking | None = None

    def parser(self) -> D0Parser:
        return D0Parser(self.config)

    def open(self) -> Port | None:
        return self.ctx.open_serial(self.config)

    def start(self, port: Port | None) -> None:
        assert port is not None, "open() gives a port"
        config: D0Config = self.config
        if config.mode == "push":
            self.ctx.stream(port, self.parser())
            return
        self._asking = Asking(
            self.ctx,
            cast(SerialLine, port),
            config.readout,
            baudrate=config.baudrate,
            address=config.address,
            fast=config.fast,
            wakeup=config.wakeup,
            silence=config.answer_timeout,
        )
        self._asking.start(config.interval)

    def read_now(self, done: Done) -> None:
        if self._asking is None:
            super().read_now(done)
        else:
            self._asking.read_now(done)
