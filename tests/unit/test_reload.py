"""Which devices a new configuration touches, and that two reloads do not run into each other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.config import Config, load
from agent.events import EventManager
from agent.registry import discover
from agent.reload import Difference, Reloader, difference


def config(path: Path, **devices: str) -> Config:
    text = "".join(
        f'[[device]]\nname = "{name}"\ndriver = "lines"\nport = "/dev/tty{name}"\n{more}\n'
        for name, more in devices.items()
        if name != "head"
    )
    path.write_text(devices.get("head", "") + text)
    return load(path, discover([]))


JSON = 'format = "json"'


def test_the_difference_of_two_configurations(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    old = config(path, a=JSON, b=JSON, c=JSON)
    assert not difference(old, config(path, a=JSON, b=JSON, c=JSON))
    assert not difference(old, config(path, c=JSON, b=JSON, a=JSON)), "their order is nobody's business"
    new = config(path, head='[mqtt]\nqos = 2\n[loop]\nslow_after = "1s"\n', d=JSON, a=JSON, b=JSON + "\nbaudrate = 300")
    assert difference(old, new) == Difference(("d",), ("c",), ("b",), ("mqtt.qos", "loop.slow_after"))


class Rig:
    """A reloader on a real event manager, whose load waits for the test, and devices that stop when they are told."""

    def __init__(self, tmp_path: Path) -> None:
        self.path = tmp_path / "c.toml"
        self.configs = [config(self.path, a=JSON)]
        self.gate = threading.Semaphore(0)
        self.loads = 0
        self.calls: list[Any] = []
        self.stops: dict[str, Callable[[], object]] = {}
        self.manager = EventManager()
        supervisor = SimpleNamespace(
            remove=lambda name, done: self.stops.__setitem__(name, done),
            add=lambda _driver, made: self.calls.append(("add", made.name)),
            start_device=lambda name: self.calls.append(("start", name)),
        )
        self.reloader = Reloader(
            self.manager,
            self.configs[0],
            self.load,
            supervisor,  # type: ignore[arg-type]
            SimpleNamespace(reserve=lambda names, done: (self.calls.append(("reserve", *names)), done())),
            on_change=lambda change: self.calls.append(change),
            on_done=lambda problem: self.calls.append(("done", problem)),
        )

    def load(self) -> Config:
        assert self.gate.acquire(timeout=10)
        self.loads += 1
        return self.configs[-1]

    def until(self, condition: Callable[[], object]) -> None:
        for _ in range(1000):
            if condition():
                return
            self.manager.run_once(1.0)
        pytest.fail(f"it does not come: {self.calls}")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.gate.release(100)
    rig.manager.close()


def test_what_is_asked_before_the_start_and_meanwhile_comes_after(rig: Rig) -> None:
    rig.reloader.request()
    rig.reloader.ready()
    rig.reloader.request()
    rig.reloader.request()
    rig.gate.release(10)
    rig.until(lambda: rig.loads == 2 and rig.calls == [("done", None)] * 2)


def test_the_new_ones_begin_when_the_old_ones_have_stopped(rig: Rig) -> None:
    rig.configs.append(config(rig.path, a=JSON + "\nbaudrate = 300", b=JSON))
    rig.gate.release(1)
    rig.reloader.ready()
    rig.reloader.request()
    rig.until(lambda: rig.stops)
    assert rig.calls == []
    rig.stops["a"]()
    assert rig.calls == [
        ("reserve", "a", "b"),
        ("add", "a"),
        ("add", "b"),
        Difference(("b",), (), ("a",), ()),
        ("start", "a"),
        ("start", "b"),
        ("done", None),
    ]
    assert [device.config.name for device in rig.reloader.config.devices] == ["a", "b"]


def test_one_that_does_not_stop_is_not_waited_for(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.reload.STOP_TIMEOUT", 0.01)
    rig.configs.append(config(rig.path, b=JSON))
    rig.gate.release(1)
    rig.reloader.ready()
    rig.reloader.request()
    rig.until(lambda: ("start", "b") in rig.calls)
    before = list(rig.calls)
    rig.stops["a"]()  # it comes to its end after all
    assert rig.calls == before


def test_nothing_changes_any_more_when_the_agent_stops(rig: Rig) -> None:
    rig.configs.append(config(rig.path, b=JSON))
    rig.reloader.ready()
    rig.reloader.request()
    rig.reloader.end()
    rig.gate.release(1)
    rig.until(lambda: rig.loads)
    rig.manager.run_once(0)
    rig.reloader.request()
    assert (rig.calls, rig.stops) == ([], {})
