"""Chromium, headless, driven through its pipe: the DevTools protocol as lines of JSON that end in a zero byte
(--remote-debugging-pipe), so that it takes no library and no port."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # root has none, and the page is ours
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--remote-debugging-pipe",
)


class Chrome:
    """One browser with one tab. ``trouble`` holds what the console complained of, and what failed to load."""

    def __init__(self, profile: Path) -> None:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        assert program, "Chromium is not installed (apt install chromium)"
        here, there = os.pipe(), os.pipe()
        command = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]

        def wire() -> None:  # it reads from 3 and writes to 4
            first, second = os.dup(here[0]), os.dup(there[1])
            os.dup2(first, 3)
            os.dup2(second, 4)

        self.process = subprocess.Popen(
            command, preexec_fn=wire, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(here[0])
        os.close(there[1])
        self._out, self._in = here[1], there[0]
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.trouble: list[str] = []
        (target,) = (each for each in self.call("Target.getTargets")["targetInfos"] if each["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            said = self._receive()
            if said.get("id") == self._number:
                assert "error" not in said, (method, said["error"])
                return said["result"]

    def _receive(self, timeout: float = 30.0) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert select.select([self._in], [], [], timeout)[0], "Chromium does not answer"
            data = os.read(self._in, 1 << 20)
            assert data, "Chromium has ended"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        said: dict[str, Any] = json.loads(line)
        match said.get("method"):
            case "Runtime.exceptionThrown":
                self.trouble.append(json.dumps(said["params"]["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if said["params"]["type"] in ("error", "warning", "assert"):
                self.trouble.append(json.dumps(said["params"]["args"]))
            case "Log.entryAdded" if said["params"]["entry"]["level"] in ("error", "warning"):
                self.trouble.append(json.dumps(said["params"]["entry"]))
            case "Network.loadingFailed" if not said["params"].get("canceled"):
                self.trouble.append(json.dumps(said["params"]))
        return said

    def size(self, width: int, height: int, *, dark: bool = False, phone: bool = False) -> None:
        scale = 2 if phone else 1
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )
        scheme = "dark" if dark else "light"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def value(self, expression: str) -> Any:
        """What JavaScript says; None: undefined, or it raised."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return result["result"].get("value")

    def wait(self, expression: str, condition: Callable[[Any], object] = bool, timeout: float = 30.0) -> Any:
        deadline = time.monotonic() + timeout
        while not condition(found := self.value(expression)):
            assert time.monotonic() < deadline, f"{expression} is {found!r}; {self.trouble}"
            select.select([self._in], [], [], 0.05)
        return found

    def picture(self, path: Path, *, whole: bool = False) -> None:
        params: dict[str, Any] = {"format": "png"}
        if whole:
            box = self.call("Page.getLayoutMetrics")["cssContentSize"]
            params |= {"captureBeyondViewport": True, "clip": {**box, "scale": 1}}
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", **params)["data"]))

    def close(self) -> None:
        self._session = None
        self.call("Browser.close")
        self.process.wait(20)
        os.close(self._out)
        os.close(self._in)
