"""What passes paho by is what paho would have sent, and what paho would have read."""

from __future__ import annotations

import socket
from itertools import pairwise
from typing import Literal

from hypothesis import example, given, settings
from hypothesis import strategies as st
from paho.mqtt.client import Client as Paho

from agent.mqtt_client import Client
from agent.mqtt_settings import MqttSettings, parse_url
from agent.mqtt_wire import Wire

Version = Literal["3.1.1", "5"]
CONNACK = {"3.1.1": b"\x20\x02\x00\x00", "5": b"\x20\x03\x00\x00\x00"}
versions = st.sampled_from(["3.1.1", "5"])


class Rig:
    """A client that is connected, and the bytes it sends."""

    def __init__(self, version: Version) -> None:
        ours, self.broker = socket.socketpair()
        self.wire = Wire(ours)
        self.acked: list[tuple[int, int]] = []
        made = MqttSettings.model_validate({"version": version})
        self.client = Client(self.wire, made, "id", None, lambda mid, code: self.acked.append((mid, code)))
        self.client.send_connect(parse_url("mqtt://broker"), None)
        self.broker.recv(4096)
        self.wire.feed(CONNACK[version])
        self.client.loop_read()
        self.wire.cork()

    def sent(self) -> bytes:
        """Since the last time."""
        sent = bytes(self.wire._out)
        self.wire._out.clear()
        return sent

    def close(self) -> None:
        self.wire.end()
        self.broker.close()


@settings(max_examples=200, deadline=None)
@given(
    version=versions,
    topic=st.text(st.characters(exclude_characters="+#\0", exclude_categories=["Cs"]), min_size=1, max_size=80),
    size=st.integers(0, 300) | st.sampled_from([16_250, 16_300, 16_383, 2_097_100, 2_097_152]),
    last=st.integers(0, 65_535),
)
def test_a_plain_publish_is_what_paho_sends(version: Version, topic: str, size: int, last: int) -> None:
    plain, paho = Rig(version), Rig(version)
    payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
    for _ in range(2):  # the second time the topic is known
        plain.client._last_mid = paho.client._last_mid = last
        plain.client._out_messages.clear()
        paho.client._out_messages.clear()
        mid = plain.client.publish_plain(topic, payload)
        assert mid == Paho.publish(paho.client, topic, payload, 1).mid
        assert plain.sent() == paho.sent()
        plain.client.publish_once(topic, payload)
        Paho.publish(paho.client, topic, payload, 0)
        assert plain.sent() == paho.sent()
    plain.close()
    paho.close()


DECEPTIVE = b"\x30\x08\x00\x01t\x00\x40\x02\x00\x02"  # a message whose payload looks like a PUBACK

answers = st.one_of(
    st.integers(1, 12).map(lambda mid: b"\x40\x02" + mid.to_bytes(2)),
    st.integers(1, 12).map(lambda mid: b"\x40\x03" + mid.to_bytes(2) + b"\x87"),
    st.just(b"\xd0\x00"),
    st.just(DECEPTIVE),
)


@settings(max_examples=300, deadline=None)
@given(stream=st.lists(answers, max_size=30), cuts=st.lists(st.integers(0, 130), max_size=6))
@example(stream=[DECEPTIVE], cuts=[6])
def test_plain_acknowledgements_are_read_as_paho_reads_them(stream: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(stream)
    edges = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    acked = []
    for past_paho in (True, False):
        rig = Rig("5")
        for number in range(12):  # of both kinds
            if number % 3:
                rig.client.publish_plain("t", b"1")
            else:
                rig.client.publish("t", b"1", 1)
        for begin, end in pairwise(edges):
            rig.wire.feed(whole[begin:end])
            while rig.wire.buffered:
                if past_paho:
                    rig.client.read_pubacks()
                assert not rig.client.loop_read()
        assert rig.client._inflight_messages >= 0
        acked.append((rig.acked, list(rig.client._out_messages), rig.client._inflight_messages))
        rig.close()
    assert acked[0] == acked[1]


def test_an_id_that_is_in_flight_is_not_given_again() -> None:
    rig = Rig("3.1.1")
    assert rig.client.publish_plain("t", b"") == 1
    rig.client._last_mid = 65_535
    assert rig.client.publish_plain("t", b"") == 0
    assert rig.client.publish_plain("t", b"") == 2
    rig.close()
