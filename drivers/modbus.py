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

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from agent.driver import Context, Done, Driver, Parser, Port, PortError, Value
from agent.driver_modbus import BusConfig, Conversation, ModbusParser, pymodbus_lacking
from agent.modbus import Unit, unit_plans


class ModbusConfig(BusConfig):
    """What the configuration says of a bus and its units."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unit: tuple[Unit, ...] = Field(min_length=1, max_length=247, description="The units on the bus.")

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
        return config.place()

    @classmethod
    def lacks(cls, config: ModbusConfig) -> str | None:  # noqa: ARG003
        return pymodbus_lacking()

    def open(self) -> Port:
        """Open the line or the connection. May block: runs on a worker, as does the first import of pymodbus."""
        if missing := self.lacks(self.config):
            raise PortError("unsupported", missing)
        import agent.modbus_pdu  # noqa: F401  (80 ms that the loop's thread shall not spend)

        return self.ctx.open_serial(self.config.as_serial())

    def start(self, port: Port | None) -> None:
        assert port is not None, "open() gives a port"
        config: ModbusConfig = self.config
        bus = config.bus(self._plans)
        self._conversation = Conversation(self.ctx, port, bus, config.timing(), tcp=config.tcp)
        self._conversation.start(config.interval)

    def set(self, output: str, value: Value, done: Done) -> None:
        self._conversation.write(output, value, done)

    def read_now(self, done: Done) -> None:
        self._conversation.read_now(done)

    def parser(self) -> Parser:
        return ModbusParser(self.config.unit, tcp=self.config.tcp)
