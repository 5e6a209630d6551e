"""The status page as people see it: the real agent, a real broker, ptys, and headless Chromium (`make page`).

Not collected by `make test`: Chromium is four times as large as all else that the tests need. PICTURES=FOLDER writes
the pictures of docs/status-page.md there; that takes as long as their charts are wide, five minutes.
"""

from __future__ import annotations

import json
import math
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chrome import Chrome

from agent.testing import PtyPort
from agent.testing.outstation import Outstation

MakeDevice = Callable[..., PtyPort]
Start = Callable[..., Outstation]

PICTURES = os.environ.get("PICTURES")
PICTURE_SECONDS = 305
WIDTHS = (360, 412, 768, 1280, 1920)
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
NUMBERS = "[...document.querySelectorAll('.device .number')].map(node => node.textContent)"
LIVE = "document.querySelector('#live')?.textContent"
UNITS = {"temperature": "°C", "humidity": "%", "pressure": "hPa", "wind": "m/s", "voltage": "V", "power": "W"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def device(name: str, port: str, *channels: str) -> dict[str, Any]:
    units = {channel: {"unit": UNITS[channel]} for channel in channels if channel in UNITS}
    return {"name": name, "driver": "lines", "port": port, "format": "json", "channels": units}


@pytest.fixture
def chrome(tmp_path: Path) -> Iterator[Chrome]:
    chrome = Chrome(tmp_path / "profile")
    yield chrome
    chrome.close()


@pytest.mark.timeout(600)
def test_the_page_is_live_quiet_and_fits(
    outstation_make_device: MakeDevice, outstation_start: Start, chrome: Chrome
) -> None:
    weather, pumps = outstation_make_device(), outstation_make_device()
    port = free_port()
    outstation = outstation_start(
        {
            "agent": {"id": "greenhouse-1"},
            "loop": {"slow_after": "1s"},  # a busy machine is not what is shown
            "page": {"listen": f"127.0.0.1:{port}"},
            "device": [
                device("weather", str(weather.path), "temperature", "humidity", "pressure", "wind"),
                device("pump-house", str(pumps.path), "voltage", "power"),
                {"name": "host", "driver": "host", "interval": "2s"},
                device("gps", "/dev/serial/by-id/usb-u-blox_7_GNSS-if00"),
            ],
        }
    )
    outstation.wait_online("weather")
    weather.send('{"temperature": 21.5, "note": "<img src=x onerror=alert(1)>"}')
    chrome.size(1280, 800)
    chrome.open(f"http://127.0.0.1:{port}/")
    chrome.wait(LIVE, lambda text: text == "live")
    chrome.wait(NUMBERS, lambda numbers: "21.5" in (numbers or ()))
    assert chrome.value("document.querySelectorAll('main img').length") == 0, "what a device says is text"
    weather.send('{"temperature": 22.75}')
    chrome.wait(NUMBERS, lambda numbers: "22.75" in numbers)
    for width in WIDTHS:
        for dark in (False, True):
            chrome.size(width, 740, dark=dark, phone=width < 700)
            assert chrome.value(WIDER) == 0, f"{width} px: there is something to the right"
    assert chrome.value("getComputedStyle(document.body).backgroundColor") == "rgb(17, 22, 20)", "dark"
    if PICTURES:
        take_pictures(chrome, weather, pumps, Path(PICTURES))
    assert chrome.trouble == []
    assert outstation.terminate() == 0
    chrome.wait(LIVE, lambda text: text == "no answer")


def test_a_token_typed_in_opens_the_page_and_stays_in_no_address(
    outstation_start: Start, chrome: Chrome, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef")
    token.chmod(0o600)
    port = free_port()
    outstation = outstation_start({"page": {"listen": f"127.0.0.1:{port}", "token_file": str(token)}})
    chrome.size(360, 740, phone=True)
    chrome.open(f"http://127.0.0.1:{port}/")
    chrome.wait("document.querySelector('#token') !== null")
    chrome.value("document.querySelector('#token').value = '0123456789abcdef'")
    chrome.value("document.querySelector('form').requestSubmit()")
    chrome.wait(LIVE, lambda text: text == "live")
    assert chrome.value("location.href") == f"http://127.0.0.1:{port}/"
    assert chrome.value("document.cookie") == "", "no script can read it"
    assert outstation.terminate() == 0


def take_pictures(chrome: Chrome, weather: PtyPort, pumps: PtyPort, folder: Path) -> None:
    """A person waits here, not a test: charts of some minutes take some minutes."""
    noise = random.Random(1).gauss
    begin = time.monotonic()
    while (t := time.monotonic() - begin) < PICTURE_SECONDS:
        pumping = int(t / 30) % 3 == 1
        weather.send(
            json.dumps(
                {
                    "temperature": round(21.5 + 1.5 * math.sin(t / 45) + noise(0, 0.04), 2),
                    "humidity": round(44 + 4 * math.cos(t / 60) + noise(0, 0.1), 1),
                    "pressure": round(1013.2 + 0.4 * math.sin(t / 90), 2),
                    "wind": round(abs(noise(3, 0.8)), 1),
                    "note": "roof, north side",
                }
            )
        )
        power = round(420 + 900 * pumping + noise(0, 8))
        pumps.send(json.dumps({"voltage": round(231 + noise(0, 0.4), 1), "power": power, "pump": pumping}))
        chrome.wait("true")
        time.sleep(0.5)
    for name, width, height, dark, whole in (
        ("light", 1280, 800, False, True),
        ("dark", 1280, 800, True, True),
        ("phone-light", 360, 740, False, False),
        ("phone-dark", 360, 740, True, False),
    ):
        chrome.size(width, height, dark=dark, phone=width < 700)
        chrome.wait(LIVE, lambda text: text == "live")
        chrome.picture(folder / f"{name}.png", whole=whole)
