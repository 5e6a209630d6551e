"""Log lines on a terminal and under the journal."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from agent import log
from agent.logline import fields, line


@pytest.fixture
def logged() -> Iterator[object]:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)

    def write(
        stream: TextIO,
        environ: dict[str, str],
        level: str = "info",
        *,
        form: log.Form = "auto",
        journal: Path = Path("/none"),
    ) -> None:
        handler = log.set_up(level, stream, environ, form=form, journal=journal)
        try:
            speaker = logging.getLogger("outstation.test")
            speaker.debug("reading.taken")
            speaker.warning("device.lost device=weather")
            try:
                raise ValueError("first\nsecond")
            except ValueError:
                speaker.exception("driver.crashed")
        finally:
            root.removeHandler(handler)

    yield write
    root.setLevel(level)
    assert root.handlers == handlers


def test_plain_lines_have_time_and_level(logged: object) -> None:
    out = io.StringIO()
    logged(out, {})  # type: ignore[operator]
    first, second, *rest = out.getvalue().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING device\.lost device=weather", first)
    assert second.endswith("Z ERROR   driver.crashed")
    assert rest
    assert all(text.startswith("    ") for text in rest)  # a traceback stays visibly one record


def test_debug_shows_where_it_is_asked_for(logged: object) -> None:
    out = io.StringIO()
    logged(out, {}, "debug")  # type: ignore[operator]
    assert "DEBUG   reading.taken" in out.getvalue()


def test_under_the_journal_every_line_has_its_priority_and_no_time(logged: object, tmp_path: Path) -> None:
    with (tmp_path / "journal").open("w+") as stream:
        status = os.fstat(stream.fileno())
        logged(stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})  # type: ignore[operator]
        stream.seek(0)
        lines = stream.read().splitlines()
    assert lines[0] == "<4>device.lost device=weather"
    assert lines[1] == "<3>driver.crashed"
    assert all(text.startswith("<3>") for text in lines[1:])


def test_a_stream_that_is_not_the_journals_is_plain(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as stream:
        assert not log.under_journald(stream, {"JOURNAL_STREAM": "1:2"})
        assert not log.under_journald(stream, {})
    assert not log.under_journald(io.StringIO(), {"JOURNAL_STREAM": "1:2"})


def test_the_level_changes_while_it_runs(logged: object) -> None:
    logged(io.StringIO(), {})  # type: ignore[operator]  # puts the root's level back at the end
    log.set_level("error")
    assert log.set_level("debug") == "error"
    assert logging.getLogger("outstation.test").isEnabledFor(logging.DEBUG)
    for wrong in ("loud", "DEBUG", ""):
        with pytest.raises(ValueError, match="error, warning, info, debug"):
            log.set_level(wrong)
    assert log.set_level("info") == "debug"


def test_json_lines_have_event_and_fields(logged: object) -> None:
    out = io.StringIO()
    logged(out, {}, form="json")  # type: ignore[operator]
    lost, crashed = map(json.loads, out.getvalue().splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", lost.pop("ts"))
    assert lost == {
        "level": "warning",
        "logger": "outstation.test",
        "event": "device.lost",
        "fields": {"device": "weather"},
        "text": "device.lost device=weather",
    }
    assert crashed["event"] == "driver.crashed"
    assert "ValueError: first\nsecond" in crashed["traceback"]


def entries(datagram: bytes) -> dict[str, str]:
    """A record of the journal's protocol, taken apart."""
    found = {}
    while datagram:
        head, _, datagram = datagram.partition(b"\n")
        key, equals, value = head.partition(b"=")
        if not equals:
            length = int.from_bytes(datagram[:8], "little")
            value, datagram = datagram[8 : 8 + length], datagram[8 + length + 1 :]
        found[key.decode()] = value.decode()
    return found


def test_the_journal_gets_fields(logged: object, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald, (tmp_path / "stderr").open("w+") as stream:
        journald.bind(str(tmp_path / "journal"))
        status = os.fstat(stream.fileno())
        environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        logged(stream, environ, journal=tmp_path / "journal")  # type: ignore[operator]
        lost, crashed = entries(journald.recv(65_536)), entries(journald.recv(65_536))
        stream.seek(0)
        assert stream.read() == ""
    assert lost == {
        "MESSAGE": "device.lost device=weather",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "outstation",
        "OUTSTATION_LOGGER": "outstation.test",
        "OUTSTATION_EVENT": "device.lost",
        "OUTSTATION_DEVICE": "weather",
    }
    assert crashed["PRIORITY"] == "3"
    assert crashed["MESSAGE"].startswith("driver.crashed\nTraceback")


def test_what_the_journal_does_not_take_goes_to_its_stream(logged: object, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        journald.bind(str(tmp_path / "journal"))
    with (tmp_path / "stderr").open("w+") as stream:  # nobody listens any more
        status = os.fstat(stream.fileno())
        environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        logged(stream, environ, journal=tmp_path / "journal")  # type: ignore[operator]
        stream.seek(0)
        assert stream.read().startswith("<4>device.lost device=weather\n<3>driver.crashed\n")


@pytest.fixture
def shown() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    level, out = root.level, io.StringIO()
    handler = log.set_up("info", out, {})
    yield out
    root.removeHandler(handler)
    root.setLevel(level)


def test_equal_lines_in_a_row_are_summed(shown: io.StringIO) -> None:
    speaker = logging.getLogger("outstation.test")
    for _ in range(7):
        speaker.warning("device.lost device=weather")
    speaker.info("device.online device=weather")
    speaker.info("device.online device=weather")
    speaker.info("device.online device=weather")
    speaker.info("clock.set")
    said = [text[25:] for text in shown.getvalue().splitlines()]
    assert said == [
        *["WARNING device.lost device=weather"] * 3,
        "INFO    log.repeated times=7 hidden=4",
        *["INFO    device.online device=weather"] * 3,
        "INFO    clock.set",
    ]


def test_what_comes_once_a_minute_is_no_repeat(shown: io.StringIO) -> None:
    speaker = logging.getLogger("outstation.test")
    for at in range(5):
        record = speaker.makeRecord(speaker.name, logging.WARNING, "", 0, "disk.slow", (), None)
        record.created = 1e9 + at * (log.APART + 1)
        speaker.handle(record)
    assert shown.getvalue().count("disk.slow") == 5


def test_what_stands_before_the_host_of_an_url_is_never_shown(shown: io.StringIO) -> None:
    logging.getLogger("x").error("cannot open %s", "socket://ann:s3cret@host:1")
    assert "socket://***@host:1" in shown.getvalue()
    assert "s3cret" not in shown.getvalue()


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"device": "weather", "reason": "hung up"},
        {"path": 'C:\\new "x"', "text": "two\nlines", "empty": "", "equals": "a=b"},
        {"ü": "°C", "text": "\x1b[2J\r\x7f\U000e0001 \\u0041"},
    ],
)
def test_a_line_can_be_taken_apart(given: dict[str, str]) -> None:
    told = {key: value.replace('"', "'") for key, value in given.items()}
    assert fields(line("device.lost", **given)) == ("device.lost", told)


@pytest.mark.parametrize("text", ["", "agent.state\n{}", "Some library says a=b", "a.b c"])
def test_what_is_no_line_of_ours_is_not_taken_apart(text: str) -> None:
    assert fields(text) is None
