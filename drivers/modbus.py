"""Modbus: registers, coils and inputs of all units on one bus, over a serial line (RTU), a serial server or TCP.

Device: electricity meters, inverters, PLCs, drives, sensors: up to 247 units on an RS-485 line, or behind a gateway.
One [[device]] is one bus; each unit on it is a [[device.unit]], and gives a reading of its own each ``interval``, of
channels ``<unit>_<register>`` and ``<unit>_online``. Needs pymodbus: pip install "outstation[modbus]".

Wire format: ``port`` says which. A path: RTU on a serial line. ``socket://host:port``: RTU through a serial server set
to raw TCP; say its ``baudrate``, for the silence. ``tcp://host``, ``tcp://host:port``: Modbus TCP (default: port 502).
One question at a time; neighbouring registers are read by one question, up to 125, across ``gap`` undeclared ones. With
RTU 3.5 characters of silence stand before each question, 1.75 ms above 19200 Bd.

- Types: u16, i16, u32, i32, u64, i64, f32, f64, text (``string``), bit fields; ``order`` tells word and byte order.
- A unit that does not answer (``timeout``) is asked after the others from then on. ``retries`` rounds later it counts
  as dead: ``<unit>_online`` is false, and it is asked after 1, 2, 4 ... intervals, at most ``longest_pause`` apart.
  Keep ``answer_timeout`` so short that all units' answers and one time-out fit into ``interval``: then it costs the
  others nothing. However many are dead, they cost at most one time-out an interval.
- What a unit refuses is a fault ``exception`` with the standard's name for it: "illegal data address" means that it has
  no such register, or that ``gap`` reads one that it has not. A garbled answer (``checksum``) is asked for again.
- A register with ``writable = true`` is set by a command; it is written once, and read back at once. A command to a
  dead unit is refused.

Source: MODBUS Application Protocol V1.1b3; MODBUS over Serial Line V1.02; MODBUS Messaging on TCP/IP V1.0b.

Sample::

    [[device]]
    name = "cellar"
    driver = "modbus"
    port = "/dev/serial/by-id/usb-FTDI_FT232R_USB_UART_A50285BI-if00-port0"
    baudrate = 19200
    parity = "even"
    interval = "1s"
    answer_timeout = "300ms"

    [[device.unit]]
    name = "meter"
    address = 1

    [[device.unit.register]]
    name = "voltage"
    table = "input"
    address = 0
    type = "f32"
    unit = "V"
    low = 0
    high = 300
    device_class = "voltage"

    [[device.unit.register]]
    name = "energy"
    table = "input"
    address = 0x0156
    type = "f32"
    unit = "kWh"
    device_class = "energy"
    state_class = "total_increasing"

    [[device.unit]]
    name = "heatpump"
    address = 7

    [[device.unit.register]]
    name = "setpoint"
    address = 100
    type = "i16"
    scale = 0.1
    unit = "°C"
    low = 5
    high = 30
    writable = true
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from agent.driver import Context, Done, Driver, Fault, Handle, Parser, PollConfig, Port, PortError, Sample, Value
from agent.modbus import Unit, unit_plans
from agent.modbus_bus import Bus, Garbled, Outcome, Question, Silence
from agent.quantity import Interval

if TYPE_CHECKING:
    from agent.modbus_pdu import Exchange

QUIET: Final = 0.1
"""Seconds of silence after which what came is all: six times the 16 ms for which a USB adapter may hold bytes back."""


class ModbusConfig(PollConfig):
    """What the configuration says of a bus and its units."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    retries: int = Field(2, ge=0, le=10, description="Further questions until a silent unit counts as dead.")
    longest_pause: Interval = Field(30.0, description="Longest pause between two questions to a dead unit.")
    silence: Interval | None = Field(
        None, le=1.0, description="Silence before each question on a serial line; default: as the standard has it."
    )
    unit: tuple[Unit, ...] = Field(min_length=1, max_length=247, description="The units on the bus.")

    @field_validator("port")
    @classmethod
    def _address(cls, port: str) -> str:
        if port.startswith("tcp://"):
            tcp_address(port)
        return port

    @field_validator("unit")
    @classmethod
    def _known(cls, units: tuple[Unit, ...], info: ValidationInfo) -> tuple[Unit, ...]:
        unit_plans(units)
        # On a serial line 0 is for all at once, and nobody answers; from 248 on they are reserved (V1.02, section 2.2).
        if not info.data.get("port", "tcp:").startswith("tcp:") and (
            wrong := [str(unit.address) for unit in units if not 1 <= unit.address <= 247]
        ):
            raise ValueError(f"units on a serial line have addresses from 1 to 247, not {', '.join(wrong)}")
        return units

    @property
    def tcp(self) -> bool:
        """Modbus TCP rather than RTU frames."""
        return self.port.startswith("tcp://")

    @property
    def character(self) -> float:
        """Seconds that one character takes on the line: start bit, data, parity, stop bits; 0 with Modbus TCP."""
        if self.tcp:
            return 0.0
        return (1 + self.bytesize + (self.parity != "none") + self.stopbits) / self.baudrate

    @property
    def quiet_before(self) -> float:
        """Seconds of silence before a question: MODBUS over Serial Line V1.02, section 2.5.1.1."""
        if self.silence is not None or not self.character:
            return self.silence or 0.0
        return 0.00175 if self.baudrate > 19200 else 3.5 * self.character


def tcp_address(url: str) -> tuple[str, int]:
    """Host and port of ``tcp://host[:port]``. Raises ValueError."""
    try:
        parts = urlsplit(url)
        host, number = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{error}; write tcp://host or tcp://host:port") from None
    if not host or number == 0 or parts.path or parts.query or parts.username:
        raise ValueError("write tcp://host or tcp://host:port")
    return host, number or 502


class ModbusParser(Parser):
    """The answers of all units, round after round, to samples: for recordings, which hold no questions."""

    def __init__(self, config: ModbusConfig) -> None:
        self._config = config
        self._bus = Bus(unit_plans(config.unit), interval=1.0, timeout=1.0)
        self._exchange: Exchange | None = None

    def feed(self, data: bytes) -> Iterable[Sample | Fault]:
        items: list[Sample | Fault] = []
        while data:
            exchange = self._exchange or self._ask()
            outcome = exchange.feed(data)
            if outcome is None:
                break
            data, self._exchange = exchange.rest, None
            if exchange.skipped:
                items.append(Fault("noise", f"{exchange.skipped} bytes before an answer", exchange.noise))
            items += self._bus.settle(outcome, 0.0)
        return items

    def end(self) -> Iterable[Sample | Fault]:
        exchange, self._exchange = self._exchange, None
        if exchange is None or not (skipped := exchange.end())[0]:
            return []
        self._bus = Bus(unit_plans(self._config.unit), interval=1.0, timeout=1.0)
        return [Fault("cut", f"{skipped[0]} bytes at the end: {exchange.why}", skipped[1])]

    def _ask(self) -> Exchange:
        question = self._bus.next(0.0)
        if question is None:
            self._bus.tick(0.0)
            question = self._bus.next(0.0)
        assert question is not None, "every round has a question"
        self._exchange = exchange_for(self._config, question, None)
        return self._exchange


def exchange_for(config: ModbusConfig, question: Question, transaction: int | None) -> Exchange:
    """The frame that asks question, and what finds its answer; transaction None: whatever number the answer has."""
    from agent.modbus_pdu import RtuExchange, TcpExchange

    if not config.tcp:
        return RtuExchange(question)
    made = TcpExchange(question, transaction or 0)
    made.any_transaction = transaction is None
    return made


class Modbus(Driver):
    """Modbus units on a bus: registers, coils and inputs, over serial lines (RTU), serial servers and TCP."""

    Config = ModbusConfig

    def __init__(self, config: ModbusConfig, ctx: Context) -> None:
        super().__init__(config, ctx)
        self._plans = unit_plans(config.unit)
        self.channels = tuple(channel for plan in self._plans for channel in plan.channels())
        self.outputs = tuple(output for plan in self._plans for output in plan.outputs())

    @classmethod
    def shares(cls, config: ModbusConfig) -> str:
        return "tcp://{}:{}".format(*tcp_address(config.port)) if config.tcp else config.port

    @classmethod
    def lacks(cls, config: ModbusConfig) -> str | None:  # noqa: ARG003
        try:
            import pymodbus  # noqa: F401
        except ImportError as error:
            return f'pymodbus cannot be imported ({error}); pip install "outstation[modbus]"'
        return None

    def open(self) -> Port:
        """Open the line or the connection. May block: runs on a worker, as does the first import of pymodbus."""
        if missing := self.lacks(self.config):
            raise PortError("unsupported", missing)
        import agent.modbus_pdu  # noqa: F401  (80 ms that the loop's thread shall not spend)

        if not self.config.tcp:
            return self.ctx.open_serial(self.config)
        url = "socket://{}:{}".format(*tcp_address(self.config.port))
        return self.ctx.open_serial(self.config.model_copy(update={"port": url}))

    def start(self, port: Port | None) -> None:
        assert port is not None, "open() gives a port"
        config: ModbusConfig = self.config
        self._port = port
        self._bus = Bus(
            self._plans,
            interval=config.interval,
            timeout=config.answer_timeout,
            retries=config.retries,
            longest=config.longest_pause,
        )
        self._transaction = 0
        self._exchange: Exchange | None = None
        self._timers: list[Handle] = []
        self._pausing = False
        self._heard = self._free_at = self.ctx.now()
        self.ctx.watch(port, self._readable)
        self.ctx.every(config.interval, self._tick, first_after=0.0, name="round")

    def _tick(self) -> None:
        if not self.ctx.blocked:
            self.ctx.emit(*self._bus.tick(self.ctx.now()))
            self._next()

    def _next(self) -> None:
        """Ask the next question, when the line has been silent for long enough."""
        if self._exchange is not None or self._pausing:
            return
        now = self.ctx.now()
        if now < self._free_at:
            self._pausing = True
            self.ctx.after(self._free_at - now, self._silent, name="silence")
            return
        question = self._bus.next(now)
        if question is None:
            return
        self._transaction = self._transaction % 0xFFFF + 1
        self._exchange = exchange_for(self.config, question, self._transaction)
        self._port.write(self._exchange.frame)
        # The kernel has the question at once; on the line it is when its last character has been sent.
        sending = len(self._exchange.frame) * self.config.character
        self._timers = [self.ctx.after(sending + self.config.answer_timeout, self._late, name="answer")]

    def _silent(self) -> None:
        self._pausing = False
        self._next()

    def _readable(self) -> None:
        if data := self._port.read():
            self._take(data)

    def _take(self, data: bytes) -> None:
        self._heard = self.ctx.now()
        exchange = self._exchange
        if exchange is None:
            self._free_at = self._heard + self.config.quiet_before
            self.ctx.emit(Fault("noise", "bytes that nobody asked for, as a late answer", data))
        elif (outcome := exchange.feed(data)) is not None:
            skipped, noise = exchange.end()
            if skipped:
                self.ctx.emit(Fault("noise", f"{skipped} bytes beside an answer: {exchange.why}", noise))
            self._settle(outcome)
        elif len(self._timers) == 1 and not self.config.tcp:
            self._timers.append(self.ctx.after(QUIET, self._quiet, name="quiet"))

    def _overtaken(self, exchange: Exchange | None) -> bool:
        """The answer came while the loop was held up: a timer that is due comes before a port that is readable."""
        self._readable()
        return self._exchange is not exchange

    def _quiet(self) -> None:
        """Something came a while ago: if nothing has followed, and it could have been an answer, it was garbled."""
        exchange = self._exchange
        assert exchange is not None, "its timers end with it"
        if self._overtaken(exchange):
            return
        del self._timers[1:]
        left = self._heard + QUIET - self.ctx.now()
        if left > 0.001:
            self._timers.append(self.ctx.after(left, self._quiet, name="quiet"))
        elif exchange.skipped + len(exchange.rest) >= 5:  # the shortest answer; less is a glitch on the line
            self._settle(Garbled(exchange.why, exchange.end()[1]))

    def _late(self) -> None:
        exchange = self._exchange
        assert exchange is not None, "its timers end with it"
        if not self._overtaken(exchange):
            _, noise = exchange.end()
            self._settle(Silence(exchange.why, noise))

    def _settle(self, outcome: Outcome) -> None:
        for timer in self._timers:
            timer.cancel()
        self._exchange = None
        now = self.ctx.now()
        self._free_at = now + self.config.quiet_before
        self.ctx.emit(*self._bus.settle(outcome, now))
        self._next()

    def set(self, output: str, value: Value, done: Done) -> None:
        self._bus.write(output, value, done)
        self._next()

    def parser(self) -> Parser:
        return ModbusParser(self.config)
