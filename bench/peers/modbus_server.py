"""pymodbus's own server as the units on a bus: on a pty, or on TCP of 127.0.0.1.

python bench/peers/modbus_server.py serial LINK | tcp PORT | rtu PORT   [--units 8] [--dead 3,6] [--dying 2,7]

Unit n holds its own number in holding register 0, the single 21.5 + n in 1 and 2, and 180 in 10.
Dead ones never answer; dying ones stop on SIGUSR1 and answer again on SIGUSR2. It says "ready" once it listens.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import tty
from pathlib import Path

from pymodbus import FramerType
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice


class Pty:
    """Two ptys, joined by their masters: to each of the two programs, a serial line to the other."""

    def __init__(self, link: Path) -> None:
        (ours, self.near), (theirs, far) = os.openpty(), os.openpty()
        for slave in (self.near, far):
            tty.setraw(slave)
        self._far = far  # open here as well, so that the master does not hang up between two openings
        link.unlink(missing_ok=True)
        link.symlink_to(os.ttyname(far))
        loop = asyncio.get_running_loop()
        for source, sink in ((ours, theirs), (theirs, ours)):
            loop.add_reader(source, lambda a=source, b=sink: os.write(b, os.read(a, 4096)))


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["serial", "tcp", "rtu"])
    parser.add_argument("where", help="path of the link to the line, or a port")
    parser.add_argument("--units", type=int, default=8)
    parser.add_argument("--dead", default="")
    parser.add_argument("--dying", default="")
    options = parser.parse_args()
    dead = {int(word) for word in options.dead.split(",") if word}
    dying = {int(word) for word in options.dying.split(",") if word}
    # Units that it has not, its simulator answers for: "server device failure". Silence is made by sending nothing.
    silent = set(dead)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, silent.update, dying)
    loop.add_signal_handler(signal.SIGUSR2, silent.difference_update, dying)

    def passes(sending: bool, data: bytes) -> bytes:
        unit = data[6 if options.kind == "tcp" else 0]
        return b"" if sending and unit in silent else data

    devices = [
        SimDevice(
            unit,
            [
                SimData(0, values=unit, datatype=DataType.REGISTERS),
                SimData(1, values=21.5 + unit, datatype=DataType.FLOAT32),
                SimData(10, values=180, datatype=DataType.REGISTERS),
            ],
        )
        for unit in range(1, options.units + 1)
    ]
    if options.kind == "serial":
        pty = Pty(Path(options.where))
        server: ModbusSerialServer | ModbusTcpServer = ModbusSerialServer(
            devices, port=os.ttyname(pty.near), trace_packet=passes
        )
    else:
        server = ModbusTcpServer(
            devices,
            framer=FramerType.SOCKET if options.kind == "tcp" else FramerType.RTU,
            address=("127.0.0.1", int(options.where)),
            trace_packet=passes,
        )
    await server.serve_forever(background=True)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
