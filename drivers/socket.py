r"""Lines or frames over a socket: TCP, UDP or Unix, to a server or as one.

Device: a network sensor, a gateway, a program on this machine: whatever sends text or binary frames.

Wire format: ``[device.lines]`` for text, with the formats of the driver ``lines``, or ``[device.frames]`` for binary
frames, with those of the driver ``frames``. A connection's end within a line or frame is the fault ``cut``. With UDP a
datagram stands for itself: it may hold several lines or frames, the last one needs no ending, and none goes on in the
next datagram.

``connect`` is the address of a server: a connection that is lost is made again, at once and then ever more slowly.
``listen`` is an address of this machine, at which ``clients`` may be connected at once; one too many is hung up on,
and is the fault ``refused``. Readings of all clients are this device's. Without a host it is 127.0.0.1, so that nobody
else can reach it; nothing asks who sends, so listen at another address only in a network that you trust.

A Unix socket's file is made with ``mode``, takes the place of one that was left behind, and is removed at the end.

Source: RFC 9293 (TCP), RFC 768 (UDP), unix(7).

Sample::

    [[device]]
    name = "aircraft"
    driver = "socket"
    connect = "tcp://localhost:30003"

    [device.lines]
    format = "regex"
    pattern = "^MSG,3,[^,]*,[^,]*,(?P<hex>[0-9A-F]{6}),(?:[^,]*,){6}(?P<altitude>[0-9]+),"
    channels.hex.type = "text"
    channels.altitude.unit = "ft"
"""

from __future__ import annotations

from typing import Any, cast

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from agent.driver import Context, DeviceConfig, Driver, Parser, Port
from agent.driver_frames import FrameFormat, FrameParser
from agent.driver_lines import LineFormat, LineParser
from agent.driver_socket import Clients, DatagramParser
from agent.fields_text import Escaped, unescape
from agent.framing import ENDINGS
from agent.ports_socket import Address, Listener, open_client, open_server


class SocketConfig(DeviceConfig):
    """Where the socket is, and what comes over it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    connect: str = Field("", description="Server: tcp://host:port, udp://host:port or unix:///path.")
    listen: str = Field(
        "", validate_default=True, description="Or our own address: tcp://:port, udp://0.0.0.0:port, unix:///path."
    )
    clients: int = Field(16, ge=1, le=1000, description="Most clients that are connected at once.")
    mode: str = Field("0660", pattern=r"^0?[0-7]{3}$", description="Permissions of a Unix socket that we listen at.")
    wakeup: Escaped = Field(
        "",
        max_length=1024,
        description=r"Sent after connecting, or to each client; \r \n \t \0 \e \xHH stand for control bytes.",
    )
    lines: LineFormat | None = Field(None, description="What comes are lines.")
    frames: FrameFormat | None = Field(None, validate_default=True, description="What comes are binary frames.")

    @field_validator("connect", "listen")
    @classmethod
    def _address(cls, url: str, info: ValidationInfo) -> str:
        if url:
            host = Address.of(url).host
            if info.field_name == "connect" and not host:
                raise ValueError("the host is missing; write tcp://host:port")
        if info.field_name == "listen" and bool(url) == bool(info.data.get("connect")) and "connect" in info.data:
            raise ValueError("give either connect or listen")
        return url

    @field_validator("wakeup")
    @classmethod
    def _somebody(cls, wakeup: str, info: ValidationInfo) -> str:
        if wakeup and str(info.data.get("listen")).startswith("udp:"):
            raise ValueError("who listens to UDP knows nobody to send it to; use connect")
        return wakeup

    @field_validator("frames")
    @classmethod
    def _one(cls, frames: FrameFormat | None, info: ValidationInfo) -> FrameFormat | None:
        if (frames is None) == (info.data.get("lines") is None) and "lines" in info.data:
            raise ValueError("give either [device.lines] or [device.frames]")
        return frames

    def address(self) -> Address:
        """Of the server, or our own."""
        return Address.of(self.connect or self.listen)


class Socket(Driver):
    """Lines or frames over a socket: TCP, UDP or Unix, to a server or as one."""

    Config = SocketConfig

    def __init__(self, config: SocketConfig, ctx: Context) -> None:
        super().__init__(config, ctx)
        self._clients: Clients | None = None
        if config.lines is not None:
            self.channels = config.lines.line_channels()
        elif config.frames is not None:
            self.channels = config.frames.frame_channels()

    @classmethod
    def shares(cls, config: Any) -> str | None:
        return f"socket {config.listen}" if config.listen else None

    def parser(self) -> Parser:
        """A new parser, for one connection or all datagrams."""
        lines, frames = self.config.lines, self.config.frames
        parser: Parser = LineParser(lines) if lines is not None else FrameParser(frames)
        if not self.config.address().datagrams:
            return parser
        return DatagramParser(parser, (ENDINGS[lines.ending] or b"\n") if lines is not None else b"")

    def open(self) -> Port:
        config, address = self.config, self.config.address()
        if config.listen:
            return cast(Port, self.ctx.open_port(config.listen, open_server, address, int(config.mode, 8)))
        return self.ctx.open_port(config.connect, open_client, address)

    def start(self, port: Port | None) -> None:
        assert port is not None, "open() gives a port"
        config, greeting = self.config, unescape(self.config.wakeup)
        if config.listen and not config.address().datagrams:
            listener = cast(Listener, port)
            self._clients = Clients(self.ctx, listener, self.parser, most=config.clients, greeting=greeting)
            self._clients.start()
            return
        if greeting:
            port.write(greeting)
        self.ctx.stream(port, self.parser())

    def stop(self) -> None:
        if self._clients is not None:
            self._clients.stop()
