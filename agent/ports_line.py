"""What pyserial leaves out when it sets a line up: RS-485, and modem lines that outlive the port."""

from __future__ import annotations

import fcntl
import struct
import termios
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from agent.errors import PortError
from agent.quantity import Duration

_TIOCGRS485: Final = 0x542E  # asm-generic/ioctls.h
_TIOCSRS485: Final = 0x542F
_RS485: Final = struct.Struct("=8I")  # struct serial_rs485 (linux/serial.h): flags, two delays in ms, reserved
_ENABLED, _RTS_ON_SEND, _RTS_AFTER_SEND, _RX_DURING_TX, _TERMINATE_BUS = 1, 2, 4, 16, 32


class Rs485(BaseModel):
    """RS-485 by the kernel (Documentation/driver-api/serial/serial-rs485.rst): it switches the transceiver by RTS."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rts_on_send: bool = Field(True, description="Level of RTS while sending: true is high.")
    rts_after_send: bool = Field(False, description="Level of RTS while not sending.")
    delay_before_send: Duration = Field(0.0, le=0.1, description="From the switching to the first bit.")
    delay_after_send: Duration = Field(0.0, le=0.1, description="From the last bit to the switching back.")
    hear_own: bool = Field(False, description="Receive while sending: what is sent comes back as an echo.")
    terminate: bool = Field(False, description="Switch the terminating resistor on, where there is one to switch.")

    def flags(self) -> int:
        """As the kernel has them."""
        return (
            _ENABLED
            | _RTS_ON_SEND * self.rts_on_send
            | _RTS_AFTER_SEND * self.rts_after_send
            | _RX_DURING_TX * self.hear_own
            | _TERMINATE_BUS * self.terminate
        )


def set_rs485(fd: int, name: str, mode: Rs485) -> None:
    """Switch the port to RS-485. Raises PortError where its driver cannot, or does otherwise than it was told."""
    delays = round(mode.delay_before_send * 1000), round(mode.delay_after_send * 1000)
    wanted = _RS485.pack(mode.flags(), *delays, *(0,) * 5)
    remedy = (
        "an adapter that switches by itself needs no rs485: leave it out; else only UARTs with a driver for it can "
        "(Raspberry Pi 4 and older: PL011 since Linux 5.17)"
    )
    try:
        fcntl.ioctl(fd, _TIOCSRS485, wanted)
        has = _RS485.unpack(fcntl.ioctl(fd, _TIOCGRS485, bytes(_RS485.size)))
    except OSError as error:
        raise PortError("unsupported", f"{name} has no RS-485 mode: {error.strerror}", remedy) from error
    # A driver clears what it cannot do, and says nothing.
    levels = _ENABLED | _RTS_ON_SEND | _RTS_AFTER_SEND
    if has[0] & levels != mode.flags() & levels:
        raise PortError("unsupported", f"{name} does not take these levels of RTS for RS-485", remedy)


def keep_lines_on_close(fd: int, name: str) -> None:
    """Clear HUPCL: the kernel then leaves DTR and RTS as they are when the last who has the port open closes it."""
    try:
        settings = termios.tcgetattr(fd)
        settings[2] &= ~termios.HUPCL
        termios.tcsetattr(fd, termios.TCSANOW, settings)
    except termios.error as error:
        raise PortError("failed", f"{name} refuses hang_up = false: {error.args[-1]}", "leave it out") from error
