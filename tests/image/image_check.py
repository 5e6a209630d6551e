"""The agent in the container that `tests/image/run` has built. Arguments: podman, its options. Prints what it saw."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from agent.testing import Broker, PtyPort, Subscriber

NAME = "outstation-image-check"
DIALOUT = 20  # Debian's number for the group of serial ports
CONFIG = """
[agent]
id = "container"
[mqtt]
urls = ["{url}"]
[[device]]
name = "weather"
driver = "lines"
port = "/dev/ttyUSB0"
format = "json"
"""
TIMEOUT = 60.0


def expect(what: str, holds: object, seen: object = "") -> None:
    print(f"{'ok ' if holds else 'NOT'} {what}" + (f": {seen}" if seen != "" else ""), flush=True)
    if not holds:
        raise SystemExit(1)


def until(what: str, condition: Callable[[], object]) -> None:
    end = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > end:
            expect(what, False)
        time.sleep(0.1)


class Container:
    def __init__(self, podman: list[str], options: list[str]) -> None:
        self._podman = podman
        self._options = options

    def podman(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._podman, *arguments],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def start(self) -> None:
        done = self.podman("run", "--detach", "--name", NAME, *self._options, "localhost/outstation")
        expect("it starts", done.returncode == 0, done.stderr.strip()[-500:] if done.returncode else "")

    def inspect(self, form: str) -> str:
        return self.podman("inspect", "--format", form, NAME).stdout.strip()

    def log(self) -> str:
        done = self.podman("logs", NAME)
        return done.stdout + done.stderr

    def health(self) -> int:
        """The status of the image's own health check: 0 healthy, 1 not."""
        return self.podman("healthcheck", "run", NAME).returncode


def check(container: Container, device: PtyPort, subscriber: Subscriber) -> None:
    def readings() -> list[dict[str, object]]:
        return [m.json() for m in subscriber.messages if m.topic == "outstation/container/weather/telemetry"]

    def states() -> list[bytes]:
        return [m.payload for m in subscriber.messages if m.topic == "outstation/container/availability"]

    container.start()
    until("it is online", lambda: b"online" in states())
    until("its device is online", lambda: container.health() == 0)
    device.send('{"t": 21.5}')
    until("a reading arrives", readings)
    expect(
        "a line of the serial port is a reading at the broker", readings()[0]["fields"] == {"t": 21.5}, readings()[0]
    )

    pid = container.inspect("{{.State.Pid}}")
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    expect("it is not root", status["Uid"].split() == ["10001"] * 4, f"uid {status['Uid'].split()[0]}")
    expect(
        "it has no capabilities", {int(status[f"Cap{name}"], 16) for name in ("Eff", "Prm", "Inh", "Bnd", "Amb")} == {0}
    )
    expect("it can gain none", status["NoNewPrivs"] == "1")
    expect("it is process 1 of its container", status["NSpid"].split()[-1] == "1")
    mounts = [line.split() for line in Path(f"/proc/{pid}/mounts").read_text().splitlines()]
    root = next(fields[3].split(",") for fields in mounts if fields[1] == "/")
    expect("its file system is read-only", "ro" in root)
    cost = time.monotonic()
    expect("the health check is content", container.health() == 0, f"after {time.monotonic() - cost:.1f} s")

    container.podman("kill", "--signal", "HUP", NAME)
    until("SIGHUP reaches it", lambda: "config.unchanged" in container.log())
    expect("SIGHUP reaches it, and it goes on", container.inspect("{{.State.Status}}") == "running")

    begun = time.monotonic()
    container.podman("stop", "--time", "20", NAME)
    took = time.monotonic() - begun
    expect("a stop ends it in order", container.inspect("{{.State.ExitCode}}") == "0", f"status 0 after {took:.1f} s")
    until("it says goodbye", lambda: states()[-1] == b"offline")
    container.podman("rm", NAME)
    container.start()
    until("its device is online again", lambda: container.health() == 0)
    device.send('{"t": 21.6}')
    until("another reading", lambda: len(readings()) == 2)
    first, second = readings()
    expect(
        "a new container on the same volume goes on counting",
        second["seq"] == int(str(first["seq"])) + 1 and "resumed" not in second,
        f"seq {first['seq']}, {second['seq']}",
    )
    device.unplug()
    until("the health check notices", lambda: container.health() == 1)
    said = container.podman("exec", NAME, "outstation", "status", "-c", "/etc/outstation/outstation.toml").stdout
    why = [line.strip() for line in said.splitlines() if "weather" in line]
    expect("without its device it is unhealthy, and says why", why, " ".join(why))


def main(podman: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name, Broker() as broker, PtyPort() as device:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "outstation.toml").write_text(CONFIG.format(url=broker.url))
        node = os.path.realpath(device.path)
        os.chown(node, 0, DIALOUT)
        os.chmod(node, 0o660)
        options = [
            "--read-only",
            "--cap-drop=all",
            "--security-opt",
            "no-new-privileges",
            "--network=host",
            "--health-interval=disable",
        ]
        options += ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096", "--group-add", str(DIALOUT)]
        options += ["--volume", f"{folder}/outstation.toml:/etc/outstation/outstation.toml:ro"]
        # Not --device: a pty's node works on its own devpts alone. A real port's does anywhere.
        options += ["--volume", f"{node}:/dev/ttyUSB0", "--volume", f"{NAME}:/var/lib/outstation"]
        container = Container(podman, options)
        user = container.podman("image", "inspect", "--format", "{{json .Config}}", "localhost/outstation")
        config = json.loads(user.stdout)
        expect("the image names its user by number", config["User"] == "10001:10001")
        with Subscriber(broker.url, "outstation/#") as subscriber:
            try:
                check(container, device, subscriber)
            except BaseException:
                print(container.log()[-3000:], file=sys.stderr)
                raise
            finally:
                container.podman("rm", "--force", "--time", "2", NAME)
                container.podman("volume", "rm", "--force", NAME)


if __name__ == "__main__":
    main(sys.argv[1:])
