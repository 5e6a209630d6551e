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

import re
from collections.abc import Callable, Iterable
from functools import reduce
from operator import xor
from typing import Final, Literal, cast

from pydantic import ConfigDict, Field, model_validator

from agent.driver import Channel, Context, Driver, Fault, Handle, Parser, Port, Sample, SerialConfig, SerialLine, Value
from agent.framing import SAMPLE
from agent.obis import MeterSettings, data_sets, measured, value
from agent.quantity import Interval

STX, ETX, ACK = b"\x02", b"\x03", b"\x06"
LONGEST: Final = 16384
"""Bytes of a readout: with fifteen past months some meters send 6 kB."""
LONGEST_NAME: Final = 64
"""Bytes of the identification: the standard's 23, and what some makers add."""
RATES: Final = {b"%d" % n: 300 << n for n in range(7)}
"""Speeds in mode C, by the character that offers them (section 6.3.2)."""
RATES_B: Final = {bytes([65 + n]): 600 << n for n in range(6)}
WAKEUP: Final = bytes(65)
"""2.2 s at 300 baud, of which annex B asks for 2.1 to 2.3."""
WAKEUP_PAUSE: Final = 1.6
"""Seconds from there to the question: 1.5 to 1.7 (annex B)."""
SWITCH: Final = 0.01
"""Seconds after the last bit of "ACK 0 Z 0" until we listen at the new speed: a meter answers after 200 ms, but after
20 where the third letter of its name is small (section 6.3.2)."""
_FIRST: Final = re.compile(rb"[\x02!]")
_NAME: Final = re.compile(rb"/[A-Za-z]{3}[^()!\x02\r\n]{1,60}\r?\n")
"""An identification within a readout, which has broken off there. (A unit may hold a "/": "P/S".)"""
BITS: Final = 10
"""Of a character: start, seven, parity, stop."""


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


class D0Parser(Parser):
    """Bytes to readouts: one Sample each."""

    def __init__(self, config: D0Config) -> None:
        self._config = config
        self._buffer = bytearray()
        self._skipped = bytearray()
        self._in_step = False  # what is skipped was lost, and is not the tail of a readout
        self.name = b""
        """The identification, "/XXXZ...", of the readout that is coming in; b"" between readouts."""
        self.ended = 0
        """Readouts that have ended, well or not."""

    def feed(self, data: bytes) -> Iterable[Sample | Fault]:
        self._buffer += data
        items: list[Sample | Fault] = []
        while self._begins(items) if not self.name else self._ends(items):
            pass
        return items

    def end(self) -> Iterable[Sample | Fault]:
        left = (self.name + b"\r\n" + self._buffer)[:SAMPLE] if self.name else b""
        self._buffer.clear()
        self._skipped.clear()
        self._in_step, self.name, self.ended = False, b"", 0
        return [Fault("cut", "the stream ended within a readout", left)] if left else []

    def _begins(self, items: list[Sample | Fault]) -> bool:
        """Look for an identification; False if more bytes are needed."""
        buffer = self._buffer
        start = buffer.find(b"/")
        self._skip(start if start >= 0 else len(buffer))
        if start < 0:
            return False
        end = buffer.find(b"\n", 0, LONGEST_NAME)
        if end < 0:
            if len(buffer) < LONGEST_NAME:
                return False
            self._skip(1)
            return True
        name = bytes(buffer[:end]).strip()
        if not re.fullmatch(rb"/[A-Za-z]{3}[ -~]+", name):  # noise, or the head's echo of what we sent, "/?!"
            if name.startswith(b"/?"):
                del buffer[: end + 1]
            else:
                self._skip(1)
            return True
        if self._in_step and self._skipped.strip(b"\0\r\n \x7f"):
            items.append(Fault("syntax", "bytes between readouts", bytes(self._skipped)))
        self._skipped.clear()
        del buffer[: end + 1]
        self.name, self._in_step = name, True
        return True

    def _skip(self, length: int) -> None:
        self._skipped += self._buffer[: min(length, SAMPLE - len(self._skipped))]
        del self._buffer[:length]

    def _ends(self, items: list[Sample | Fault]) -> bool:
        """Look for the end of the readout; False if more bytes are needed."""
        buffer, limit = self._buffer, min(len(self._buffer), LONGEST)
        first = _FIRST.search(buffer, 0, limit)
        if first is not None and first[0] == STX:
            begin = first.start() + 1
            end = buffer.find(ETX, begin, limit - 1)
            if end >= 0:
                text, told = bytes(buffer[begin : end + 1]), buffer[end + 1]
                self._leave(end + 2)
                if (ours := reduce(xor, text)) != told:
                    items.append(Fault("checksum", f"BCC {ours:02x}, not {told:02x}", text[:SAMPLE]))
                    if (again := _last_name(text)) >= 0:  # its end is missing, and the next one's is here
                        self._buffer[:0] = text[again:] + bytes([told])
                    return True
                items += self._readout(text[:-1], checked=True)
                return True
        elif first is not None:
            end = buffer.find(b"\n", first.start(), limit)
            text = bytes(buffer[: first.start()])
            if end >= 0:
                again = _last_name(text)
                self._leave(again if again >= 0 else end + 1)
                if again >= 0:
                    items.append(Fault("syntax", "a readout without an end", text[: min(SAMPLE, again)]))
                else:
                    items += self._readout(text, checked=False)
                return True
        if len(buffer) < LONGEST:
            return False
        items.append(Fault("too_long", f"a readout of more than {LONGEST} bytes", bytes(buffer[:SAMPLE])))
        self._leave(LONGEST)
        self._in_step = False
        return True

    def _leave(self, length: int) -> None:
        del self._buffer[:length]
        self.name = b""
        self.ended += 1

    def _readout(self, text: bytes, *, checked: bool) -> list[Sample | Fault]:
        lines = (line for line in text.replace(b"!", b"").splitlines() if line.strip(b" \0"))
        sets, bad = data_sets(line for line in lines if not line.startswith(ACK))
        faults = [Fault("syntax", "a line that is no data set", line[:SAMPLE]) for line in bad]
        if faults and not checked:
            return [*faults]
        fields: dict[str, Value] = {}
        for code, values in sets:
            if (number := measured(values)) and (named := value(code, *number)):
                fields.setdefault(*named)
        fields = self._config.chosen(fields)
        return [*faults, Sample(fields)] if fields else [*faults]


def _last_name(text: bytes) -> int:
    """Where the last identification in text begins, or -1."""
    return max((found.start() for found in _NAME.finditer(text)), default=-1)


class D0(Driver):
    """Meters that speak IEC 62056-21 (D0, IEC 1107), asked or by themselves."""

    Config = D0Config

    def __init__(self, config: D0Config, ctx: Context) -> None:
        super().__init__(config, ctx)
        self.channels: tuple[Channel, ...] = config.channels()

    def parser(self) -> D0Parser:
        return D0Parser(self.config)

    def open(self) -> Port | None:
        return self.ctx.open_serial(self.config)

    def start(self, port: Port | None) -> None:
        assert port is not None, "open() gives a port"
        if self.config.mode == "push":
            self.ctx.stream(port, self.parser())
            return
        self._port = cast(SerialLine, port)
        self._parser: D0Parser | None = None
        self._accepted = False  # the speed that the meter offers has been answered
        self._rate = self.config.baudrate
        self._timer: Handle | None = None
        self._expecting = False
        self.ctx.watch(port, self._readable)
        self.ctx.every(self.config.interval, self.ask, first_after=0.0)

    def ask(self) -> None:
        """Ask now, unless a readout is still coming in, or nobody would take it."""
        if self._parser is not None or self.ctx.blocked:
            return
        self._parser, self._accepted = self.parser(), False
        self._switch(self.config.baudrate)
        if self.config.wakeup:
            self._port.write(WAKEUP)
            self._after(len(WAKEUP) * BITS / self.config.baudrate + WAKEUP_PAUSE, self._request)
        else:
            self._request()

    def _request(self) -> None:
        self._port.write(b"/?%s!\r\n" % self.config.address.encode())
        self._expect()

    def _readable(self) -> None:
        data, parser = self._port.read(), self._parser
        if parser is None:
            return
        items = list(parser.feed(data))
        if items or parser.ended:
            self._done(items)
        elif parser.name and not self._accepted:
            self._accepted = True
            self._accept(parser.name[4:5])
        elif self._expecting:
            self._expect()

    def _accept(self, offer: bytes) -> None:
        """The meter has said its name, and with it the speed that it can."""
        if offer in RATES:
            answer = ACK + b"0" + (offer if self.config.fast else b"0") + b"0\r\n"
            self._port.write(answer)
            if self.config.fast:
                self._after(len(answer) * BITS / self._rate + SWITCH, self._go_on, RATES[offer])
                return
        elif offer in RATES_B and self.config.fast:
            self._switch(RATES_B[offer])
        self._expect()

    def _go_on(self, rate: int) -> None:
        self._switch(rate)
        self._expect()

    def _switch(self, rate: int) -> None:
        if rate != self._rate:
            self._port.set_baudrate(rate)
            self._rate = rate

    def _silent(self) -> None:
        assert self._parser is not None, "the timer ends with the readout"
        self._done([*self._parser.end(), Fault("timeout", f"silent for {self.config.answer_timeout:g} s")])

    def _done(self, items: list[Sample | Fault]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._parser = None
        self.ctx.emit(*items)

    def _expect(self) -> None:
        """The meter has the word: this much silence, and it is given up."""
        self._after(self.config.answer_timeout, self._silent)
        self._expecting = True

    def _after(self, delay: float, fn: Callable[..., object], *args: object) -> None:
        """One timer at a time: our own next step, or the deadline."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.ctx.after(delay, fn, *args)
        self._expecting = False
