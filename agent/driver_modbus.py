"""A Modbus bus on a port: where it is, questions one at a time with silence and deadline, and recorded answers.

``modbus_bus`` says who is asked, ``modbus_pdu`` has the frames; here is the time between.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from agent.driver import Context, Done, Fault, Handle, Parser, PollConfig, Port, Sample, Value
from agent.driver_wanted import Wanted
from agent.modbus import Unit, UnitPlan, unit_plans
from agent.modbus_bus import Bus, Garbled, Outcome, Question, Silence
from agent.quantity import Interval

if TYPE_CHECKING:
    from agent.modbus_pdu import Exchange

QUIET: Final = 0.1
"""Seconds of silence after which what came is all: six times the 16 ms for which a USB adapter may hold bytes back."""


class Timing(NamedTuple):
    """Seconds: of one character on the line, of silence before a question, until the whole answer has to be there."""

    character: float
    silence: float
    answer: float


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


class BusConfig(PollConfig):
    """Where a bus is, how long characters and silences take on it, and for how long a silent unit is asked."""

    retries: int = Field(2, ge=0, le=10, description="Further questions until a silent unit counts as dead.")
    longest_pause: Interval = Field(30.0, description="Longest pause between two questions to a dead unit.")
    silence: Interval | None = Field(
        None, le=1.0, description="Silence before each question on a serial line; default: as the standard has it."
    )

    @field_validator("port")
    @classmethod
    def _address(cls, port: str) -> str:
        if port.startswith("tcp://"):
            tcp_address(port)
        return port

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

    def bus(self, plans: Sequence[UnitPlan]) -> Bus:
        """Whom a conversation asks, at its begin."""
        return Bus(
            plans,
            interval=self.interval,
            timeout=self.answer_timeout,
            retries=self.retries,
            longest=self.longest_pause,
        )

    def timing(self) -> Timing:
        """What a conversation waits for."""
        return Timing(self.character, self.quiet_before, self.answer_timeout)

    def place(self) -> str:
        """The port; with Modbus TCP, whose default is 502, always with its number."""
        if not self.tcp:
            return self.port
        host, number = tcp_address(self.port)
        return f"tcp://[{host}]:{number}" if ":" in host else f"tcp://{host}:{number}"

    def as_serial(self) -> Self:
        """These settings as ``open_serial`` takes them: to it a connection of Modbus TCP is a socket."""
        return self.model_copy(update={"port": self.place().replace("tcp", "socket", 1)}) if self.tcp else self


def pymodbus_lacking() -> str | None:
    """Why there is no pymodbus, and what to do; None if there is."""
    try:
        import pymodbus  # noqa: F401
    except ImportError as error:
        return f'pymodbus cannot be imported ({error}); pip install "outstation[modbus]"'
    return None


def exchange_for(question: Question, transaction: int | None, *, tcp: bool) -> Exchange:
    """The frame that asks question, and what finds its answer; transaction None: whatever number the answer has."""
    from agent.modbus_pdu import RtuExchange, TcpExchange

    if not tcp:
        return RtuExchange(question)
    made = TcpExchange(question, transaction or 0)
    made.any_transaction = transaction is None
    return made


class ModbusParser(Parser):
    """The answers of all units, round after round, to samples: for recordings, which hold no questions."""

    def __init__(self, units: Sequence[Unit], *, tcp: bool) -> None:
        self._units = units
        self._tcp = tcp
        self._bus = Bus(unit_plans(units), interval=1.0, timeout=1.0)
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
        self._bus = Bus(unit_plans(self._units), interval=1.0, timeout=1.0)
        return [Fault("cut", f"{skipped[0]} bytes at the end: {exchange.why}", skipped[1])]

    def _ask(self) -> Exchange:
        question = self._bus.next(0.0)
        if question is None:
            self._bus.tick(0.0)
            question = self._bus.next(0.0)
        assert question is not None, "every round has a question"
        self._exchange = exchange_for(question, None, tcp=self._tcp)
        return self._exchange


class Conversation:
    """Asks a port what ``Bus`` says, and tells it what came; made anew at each start of its driver."""

    def __init__(self, ctx: Context, port: Port, bus: Bus, timing: Timing, *, tcp: bool) -> None:
        self._ctx = ctx
        self._port = port
        self._bus = bus
        self._timing = timing
        self._tcp = tcp
        self._transaction = 0
        self._exchange: Exchange | None = None
        self._timers: list[Handle] = []
        self._pausing = False
        self._heard = self._free_at = 0.0
        self._wanted = Wanted()

    def start(self, interval: float) -> None:
        """Begin: a round each ``interval`` seconds, the first one now."""
        self._heard = self._free_at = self._ctx.now()
        self._ctx.watch(self._port, self._readable)
        self._ctx.every(interval, self._tick, first_after=0.0, name="round")

    def write(self, name: str, value: Value, done: Done) -> None:
        """Set a channel as soon as the line is free; see ``Bus.write``."""
        self._bus.write(name, value, done)
        self._next()

    def read_now(self, done: Done) -> None:
        """Ask all units once more; done is told when nothing is left to ask."""
        if not self._bus.refresh():
            done("none of its units answers; they are asked again by themselves")
            return
        self._wanted.by(done)
        self._next()

    def _tick(self) -> None:
        if not self._ctx.blocked:
            self._ctx.emit(*self._bus.tick(self._ctx.now()))
            self._next()

    def _next(self) -> None:
        """Ask the next question, when the line has been silent for long enough."""
        if self._exchange is not None or self._pausing:
            return
        now = self._ctx.now()
        if now < self._free_at:
            self._pausing = True
            self._ctx.after(self._free_at - now, self._silent, name="silence")
            return
        question = self._bus.next(now)
        if question is None:
            self._wanted.over()
            return
        self._transaction = self._transaction % 0xFFFF + 1
        self._exchange = exchange_for(question, self._transaction, tcp=self._tcp)
        self._port.write(self._exchange.frame)
        # The kernel has the question at once; on the line it is when its last character has been sent.
        sending = len(self._exchange.frame) * self._timing.character
        self._timers = [self._ctx.after(sending + self._timing.answer, self._late, name="answer")]

    def _silent(self) -> None:
        self._pausing = False
        self._next()

    def _readable(self) -> None:
        if data := self._port.read():
            self._take(data)

    def _take(self, data: bytes) -> None:
        self._heard = self._ctx.now()
        exchange = self._exchange
        if exchange is None:
            self._free_at = self._heard + self._timing.silence
            self._ctx.emit(Fault("noise", "bytes that nobody asked for, as a late answer", data))
        elif (outcome := exchange.feed(data)) is not None:
            skipped, noise = exchange.end()
            if skipped:
                self._ctx.emit(Fault("noise", f"{skipped} bytes beside an answer: {exchange.why}", noise))
            self._settle(outcome)
        elif len(self._timers) == 1 and not self._tcp:
            self._timers.append(self._ctx.after(QUIET, self._quiet, name="quiet"))

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
        left = self._heard + QUIET - self._ctx.now()
        if left > 0.001:
            self._timers.append(self._ctx.after(left, self._quiet, name="quiet"))
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
        now = self._ctx.now()
        self._free_at = now + self._timing.silence
        self._ctx.emit(*self._bus.settle(outcome, now))
        self._next()
