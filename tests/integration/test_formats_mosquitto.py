"""Each form from the device to a subscriber of a real broker: nothing lost, nothing repeated, in order."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest
from started import ROOT, Started

from agent.codec_formats import lacks
from agent.tally import Tally
from agent.testing import Broker, PtyPort
from agent.testing.outstation import Outstation
from agent.testing.subscriber import Subscriber

Start = Callable[..., Outstation]
LINES = 40


def config(device: PtyPort, **mqtt: Any) -> dict[str, Any]:
    weather = {"name": "weather", "driver": "lines", "port": device.path, "format": "json"}
    return {"mqtt": mqtt, "device": [weather]}


def feed(device: PtyPort) -> None:
    for number in range(LINES):
        device.send(f'{{"n": {number}, "even": {str(number % 2 == 0).lower()}, "text": "a b"}}')


def counted(messages: list[Any]) -> Tally | None:
    """All readings; None as long as some are missing."""
    tally = Tally()
    for message in messages:
        tally.add(message.topic, message.payload)
    return tally if tally.received >= LINES else None


@pytest.mark.parametrize("form", ["influx", "senml", "cbor"])
def test_verify_proves_every_form_that_carries_numbers(
    form: str, outstation_broker: Broker, outstation_start: Start, outstation_make_device: Callable[..., PtyPort]
) -> None:
    if missing := lacks(form):
        pytest.skip(missing)
    device = outstation_make_device()
    with Subscriber(outstation_broker.url, "outstation/+/+/telemetry") as subscriber:
        agent = outstation_start(config(device, format=form, batch=7))
        feed(device)
        tally = subscriber.wait_for(counted)
        assert agent.terminate() == 0
    (weather,) = tally.devices.values()
    assert (weather.received, weather.duplicates, tally.garbage) == (LINES, 0, 0)
    assert tally.holds
    assert weather.fields == {"n": LINES - 1, "even": False, "text": "a b"}


def test_bare_values_come_in_the_order_of_the_readings_through_a_window_smaller_than_one(
    outstation_broker: Broker, outstation_start: Start, outstation_make_device: Callable[..., PtyPort]
) -> None:
    device = outstation_make_device()
    with Subscriber(outstation_broker.url, *(f"outstation/+/weather/{name}" for name in ("n", "even", "text"))) as said:
        agent = outstation_start(config(device, format="values", inflight=2))
        feed(device)
        messages = said.wait_for(lambda messages: len(messages) >= 3 * LINES and list(messages))
        assert agent.terminate() == 0
    assert [(message.topic.rpartition("/")[2], message.payload) for message in messages] == [
        pair
        for number in range(LINES)
        for pair in (("n", b"%d" % number), ("even", b"true" if number % 2 == 0 else b"false"), ("text", b"a b"))
    ]
    assert not any(message.retain for message in messages)


def test_readings_go_where_the_template_says_and_verify_and_watch_find_them_there(
    outstation_start: Start, outstation_make_device: Callable[..., PtyPort]
) -> None:
    device = outstation_make_device()
    agent = outstation_start(config(device, topic="site/{device}/now"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "agent"]
    config_file = ["-c", str(agent.config_path)]
    verify = Started([*command, "verify", *config_file], environment)
    watch = Started([*command, "watch", "--json", "--every", "1ms", *config_file], environment)
    verify.wait_for(lambda output: "site/+/now" in output)
    watch.wait_for(lambda output: '"online"' in output)
    feed(device)
    watch.wait_for(lambda output: f'"n":{LINES - 1}' in output.replace(" ", ""))
    for one in (verify, watch):
        one.process.send_signal(signal.SIGINT)
    assert watch.end() == 0
    assert verify.end() == 0
    assert f"test/weather: received {LINES}" in verify.output
    assert not [message for message in agent.subscriber.messages if message.topic.endswith("telemetry")]
