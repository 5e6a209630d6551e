"""The status page of a running agent: what a program that asks it sees."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as families

from agent.testing import PtyPort
from agent.testing.outstation import Outstation

MakeDevice = Callable[..., PtyPort]
Start = Callable[..., Outstation]


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(port: int, path: str, **headers: str) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()


def lines(name: str, device: PtyPort) -> dict[str, Any]:
    return {"name": name, "driver": "lines", "port": str(device.path), "format": "json"}


def test_it_shows_values_live_and_follows_a_reload(
    outstation_make_device: MakeDevice, outstation_start: Start, port: int
) -> None:
    weather, scale = outstation_make_device(), outstation_make_device()
    outstation = outstation_start({"page": {"listen": f"127.0.0.1:{port}"}, "device": [lines("weather", weather)]})
    outstation.wait_online("weather")
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", "/events")
        stream = connection.getresponse()

        def wait_value(device: str, channel: str, value: object) -> None:
            while True:
                line = stream.readline()
                assert line, "the stream has ended"
                if line.startswith(b"data: {") and b'"values"' in line:
                    said = json.loads(line[6:])["values"].get(device, {})
                    if said.get(channel, {}).get("value") == value:
                        return

        weather.send('{"t": 21.5}')
        assert outstation.next_reading("weather").fields == {"t": 21.5}
        wait_value("weather", "t", 21.5)
        outstation.config_path.write_text(
            outstation.config_path.read_text()
            + f'\n[[device]]\nname = "scale"\ndriver = "lines"\nport = "{scale.path}"\nformat = "json"\n'
        )
        outstation.signal(1)
        outstation.wait_online("scale")
        scale.send('{"kg": 3}')
        wait_value("scale", "kg", 3)
    metrics = {s.name: s.value for f in families(get(port, "/metrics")[1].decode()) for s in f.samples}
    assert metrics["outstation_link_up"] == 1
    assert get(port, "/healthz") == (200, b'{"status":"ok"}\n')
    assert json.loads(get(port, "/api/status")[1])["link"]["connects"] == 1
    assert outstation.terminate() == 0
    with pytest.raises(OSError, match="refused"):
        get(port, "/")


def test_without_its_token_it_shows_nothing(outstation_start: Start, port: int, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    outstation = outstation_start({"page": {"listen": f"0.0.0.0:{port}", "token_file": str(token)}})
    outstation.wait_log("page.readable")  # mode 0644
    assert get(port, "/api/status")[0] == 401
    assert get(port, "/api/status", Authorization="Bearer 0123456789abcdef")[0] == 200
    assert get(port, "/healthz")[0] == 200
    outstation.wait_log("page.denied peer=127.0.0.1 status=401 path=/api/status")
    assert "0123456789abcdef" not in outstation.log
    assert outstation.terminate() == 0


def test_a_port_that_is_taken_stops_nobody(
    outstation_make_device: MakeDevice, outstation_start: Start, port: int
) -> None:
    device = outstation_make_device()
    with socket.create_server(("127.0.0.1", port)):
        outstation = outstation_start({"page": {"listen": f"127.0.0.1:{port}"}, "device": [lines("weather", device)]})
        outstation.wait_log("page.closed")
        device.send('{"t": 1}')
        assert outstation.next_reading("weather").fields == {"t": 1}
        assert outstation.terminate() == 0
