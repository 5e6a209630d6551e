"""Parsers in real processes: same items, same order, same errors; a child that dies costs one piece."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent import parsing
from agent.driver import Fault, Parser, Sample
from agent.parsing import HostedParser, ParsingHost

SOURCE = """
import os, signal, time
from agent.driver import Fault, Parser, Sample

class Odd(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")

class Naughty(Parser):
    def __init__(self):
        self.rest = b""

    def feed(self, data):
        *lines, self.rest = (self.rest + data).split(b"\\n")
        for text in lines:
            if text == b"die":
                os.kill(os.getpid(), signal.SIGKILL)
            if text == b"leave":
                os._exit(3)
            if text == b"hang":
                signal.pause()
            if text == b"boom":
                raise ZeroDivisionError("a defect")
            if text == b"odd":
                raise Odd(1, 2)
            yield Sample({"text": text.decode(), "pid": os.getpid()})

    def end(self):
        if self.rest:
            yield Fault("cut", "half a line", self.rest)
"""


@pytest.fixture
def naughty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A parser in a module that a child can import too."""
    (tmp_path / "naughty_parser.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    root = Path(parsing.__file__).parent.parent
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{root}")
    import naughty_parser  # type: ignore[import-not-found]

    yield naughty_parser.Naughty
    del sys.modules["naughty_parser"]


@pytest.fixture
def host() -> Iterator[ParsingHost]:
    host = ParsingHost(2)
    yield host
    host.close()


def texts(items: Any) -> list[Any]:
    return [item.fields["text"] if isinstance(item, Sample) else item.kind for item in items]


def test_a_child_keeps_the_state_of_its_parsers(host: ParsingHost, naughty: Any) -> None:
    one, two = host.host(naughty()), host.host(naughty())
    assert texts(one.feed(b"a\nb")) == ["a"]
    assert texts(two.feed(b"x")) == []
    assert texts(one.feed(b"c\n")) == ["bc"]
    assert texts(one.end()) == []
    assert two.end() == (Fault("cut", "half a line", b"x"),)


def test_a_parser_moves_with_its_state(host: ParsingHost, naughty: Any) -> None:
    parser = naughty()
    assert texts(parser.feed(b"half")) == []
    assert texts(host.host(parser).feed(b" a line\n")) == ["half a line"]


def test_parsers_are_spread_over_processes(naughty: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    host = ParsingHost(4)
    parsers = [host.host(naughty()) for _ in range(4)]
    pids = [next(iter(parser.feed(b"a\n"))).fields["pid"] for parser in parsers]
    assert len(set(pids)) == 2
    assert os.getpid() not in pids
    assert host.stats() == parsing.ParsingStats(processes=2, replaced=0, parsers=4)
    host.close()
    assert host.stats().processes == 0
    for pid in set(pids):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize(("word", "how"), [(b"die", "signal 9"), (b"leave", "status 3")])
def test_a_crash_costs_one_piece(host: ParsingHost, naughty: Any, word: bytes, how: str) -> None:
    parser = host.host(naughty())
    assert texts(parser.feed(b"a\nb")) == ["a"]
    piece = b"c\n" + word + b"\n"
    assert tuple(parser.feed(piece)) == (
        Fault("parser", f"its process ended ({how}); {len(piece)} bytes are lost", piece),
    )
    assert texts(parser.feed(b"d\n")) == ["d"], "and begins anew"
    assert host.stats().replaced == 1


def test_a_neighbour_of_a_crash_begins_anew_too(naughty: Any) -> None:
    host = ParsingHost(1)
    one, two = host.host(naughty()), host.host(naughty())
    assert texts(two.feed(b"half")) == []
    assert texts(one.feed(b"die\n")) == ["parser"]
    assert texts(two.feed(b" of it\n")) == [" of it"]
    host.close()


def test_what_a_parser_raises_comes_back(host: ParsingHost, naughty: Any) -> None:
    parser = host.host(naughty())
    with pytest.raises(ZeroDivisionError, match="a defect"):
        parser.feed(b"boom\n")
    with pytest.raises(RuntimeError, match="Odd: 1 and 2"):
        parser.feed(b"odd\n")
    assert texts(parser.feed(b"a\n")) == ["a"]
    assert host.stats().replaced == 0


def test_a_child_that_hangs_is_ended(host: ParsingHost, naughty: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = host.host(naughty())
    assert texts(parser.feed(b"a\n")) == ["a"]
    monkeypatch.setattr(parsing, "ANSWER_TIMEOUT", 0.05)
    with pytest.raises(TimeoutError):
        parser.feed(b"hang\n")
    monkeypatch.undo()
    assert host.stats() == parsing.ParsingStats(processes=0, replaced=1, parsers=1)


def test_closing_frees_a_thread_that_waits(naughty: Any) -> None:
    host = ParsingHost(1)
    parser = host.host(naughty())
    assert texts(parser.feed(b"a\n")) == ["a"]
    answers: list[Any] = []
    waiting = threading.Thread(target=lambda: answers.extend(parser.feed(b"hang\n")))
    waiting.start()
    host.close()
    waiting.join(10)
    assert texts(answers) == ["parser"]


def test_a_parser_that_cannot_be_taken_there_stays(host: ParsingHost, caplog: pytest.LogCaptureFixture) -> None:
    class Local(Parser):
        def feed(self, data: bytes) -> list[Sample | Fault]:
            return [Sample({"n": len(data)})]

    parser = Local()
    assert host.host(parser) is parser
    assert "parsing.unpicklable parser=Local to=thread" in caplog.text


def test_stop_signals_do_not_end_a_child(host: ParsingHost, naughty: Any) -> None:
    parser = host.host(naughty())
    assert isinstance(parser, HostedParser)
    pid = next(iter(parser.feed(b"a\n"))).fields["pid"]  # type: ignore[union-attr]
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(pid, number)
    assert texts(parser.feed(b"b\n")) == ["b"]
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "500\n"
