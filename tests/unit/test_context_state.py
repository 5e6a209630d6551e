"""What a driver keeps: written whole or not at all, and never lost by the agent itself."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.context_state import StateFile, write_file
from agent.events import EventManager


class Bench:
    def __init__(self, path: Path, manager: EventManager) -> None:
        self.path = path
        self.manager = manager
        self.state = self.again()

    def again(self) -> StateFile:
        return StateFile(self.manager, "meter", self.path, logging.getLogger("outstation.device.meter"))

    def until(self, condition: Callable[[], object]) -> None:
        for _ in range(1000):
            if condition():
                return
            self.manager.run_once(timeout=0.05)
        raise AssertionError("never came")

    def settled(self) -> None:
        done: list[bool] = []
        self.state.settle(lambda: done.append(True))
        self.until(lambda: done)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with EventManager() as manager:
        yield Bench(tmp_path / "new" / "outbox.meter.state", manager)


def test_it_comes_back_after_a_restart(bench: Bench) -> None:
    assert bench.state.load() == {}
    bench.state.save({"water": [1, 0]})
    bench.state.save({"water": [2, 0]})
    bench.state.save({"water": [3, 0]})
    assert bench.state.load() == {"water": [3, 0]}, "also before it is written"
    bench.settled()
    assert json.loads(bench.path.read_text()) == {"water": [3, 0]}
    assert bench.again().load() == {"water": [3, 0]}
    assert [path.name for path in bench.path.parent.iterdir()] == ["outbox.meter.state"]
    assert bench.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["{broken", "[1]", ""])
def test_a_damaged_file_is_set_aside(bench: Bench, text: str, caplog: pytest.LogCaptureFixture) -> None:
    write_file(bench.path, text.encode())
    assert bench.state.load() == {}
    assert bench.path.with_suffix(".damaged").read_text() == text
    assert "state.damaged device=meter" in caplog.text


def test_what_cannot_be_written_is_said_once_and_written_with_the_next(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.path.parent.write_text("in the way")
    for number in range(3):
        bench.state.save({"n": number})
        bench.settled()
    assert caplog.text.count("state.unsaved") == 2, "the first and the second of three"
    bench.path.parent.unlink()
    bench.state.save({"n": 4})
    bench.settled()
    assert bench.again().load() == {"n": 4}


def test_a_write_that_dies_leaves_the_old_state(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(bench.path, b'{"n": 1}')

    def dies(_: int) -> None:
        raise OSError("no space")

    monkeypatch.setattr("os.fsync", dies)
    with pytest.raises(OSError, match="no space"):
        write_file(bench.path, b'{"n": 2}')
    assert bench.again().load() == {"n": 1}
