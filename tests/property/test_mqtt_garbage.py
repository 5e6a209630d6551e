"""Whatever bytes a broker sends, the session neither raises nor hangs: it goes on, or it ends with a reason."""

from __future__ import annotations

import socket
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import LinkError
from agent.events import EventManager, ManualClock
from agent.mqtt_connect import Attempt
from agent.mqtt_limit import PacketLimit
from agent.mqtt_message import Message
from agent.mqtt_session import Session
from agent.mqtt_settings import MqttSettings, parse_url
from agent.mqtt_websocket import WebSocketStream
from agent.mqtt_wire import Wire

CONNACK = {"3.1.1": b"\x20\x02\x00\x00", "5": b"\x20\x03\x00\x00\x00"}


class Owner:
    def __init__(self) -> None:
        self.ends: list[LinkError | None] = []
        self.acked: list[Any] = []

    def session_up(self) -> None: ...

    def session_acked(self, tokens: list[Any]) -> None:
        self.acked += tokens

    def session_refused(self, token: Any, topic: str, error: LinkError) -> None: ...

    def session_message(self, message: Message) -> None: ...

    def session_ended(self, error: LinkError | None) -> None:
        self.ends.append(error)


# Random bytes rarely get past the first packet: packets of random kinds with fitting lengths reach the decoders.
packets = st.builds(
    lambda first, body: bytes((first, len(body))) + body, st.integers(0, 255), st.binary(max_size=40)
) | st.binary(max_size=60)


@settings(max_examples=300, deadline=None)
@given(
    chunks=st.lists(packets, min_size=1, max_size=8),
    version=st.sampled_from(["3.1.1", "5"]),
    up=st.booleans(),
    websocket=st.booleans(),
)
def test_a_session_survives_any_bytes(chunks: list[bytes], version: str, up: bool, websocket: bool) -> None:
    failures: list[BaseException] = []
    ours, theirs = socket.socketpair()
    with theirs, EventManager(ManualClock(), on_callback_error=lambda _event, error: failures.append(error)) as manager:
        owner = Owner()
        attempt = Attempt(
            parse_url("ws://broker" if websocket else "mqtt://broker"),
            MqttSettings.model_validate({"version": version}),
        )
        wire = Wire(ours, WebSocketStream() if websocket else None)
        session = Session(manager, attempt, wire, "id", ("t", b"offline"), owner, PacketLimit())
        session.begin()
        for chunk in [CONNACK[version], *chunks] if up else chunks:
            if owner.ends:
                break
            theirs.sendall(b"\x82" + bytes((len(chunk),)) + chunk if websocket and len(chunk) < 126 else chunk)
            manager.run_once(0)  # a socket pair: what was sent is there
            if up:
                session.cork()
                session.publish("t", b"payload", 1, False, "token")
                session.uncork()
        theirs.close()
        for _ in range(5):
            manager.run_once(0)
        assert failures == []
        assert len(owner.ends) == 1
        assert owner.ends[0] is not None
        assert str(owner.ends[0])
        assert wire.fileno() == -1
