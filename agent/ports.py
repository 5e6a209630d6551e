"""Serial ports: opened on a worker, then read and written by descriptor on the event loop."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class SerialSettings(BaseModel):
    """How a serial port is opened; part of the configuration of every device on one."""

    port: str = Field(
        min_length=1,
        description="Path of the port, best below /dev/serial/by-id, or a URL of pyserial that has a descriptor, as socket://host:port.",
    )
    baudrate: int = Field(9600, ge=50, le=12_000_000, description="Bits per second.")
    bytesize: Literal[5, 6, 7, 8] = Field(8, description="Data bits.")
    parity: Literal["none", "even", "odd", "mark", "space"] = Field("none", description="Parity bit.")
    stopbits: Literal[1, 1.5, 2] = Field(1, description="Stop bits.")
    flow: Literal["none", "xonxoff", "rtscts", "dsrdtr"] = Field("none", description="Flow control.")
    dtr: bool = Field(
        False,
        description="Raise DTR. Off, as it resets many microcontroller boards; some USB devices send only when it is on.",
    )
    rts: bool = Field(False, description="Raise RTS.")
    exclusive: bool = Field(True, description="Lock the port against other programs (advisory: flock).")
