"""Log lines on a terminal and under the journal."""

from __future__ import annotations

import io
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from agent import log


@pytest.fixture
def logged() -> Iterator[object]:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)

    def write(stream: TextIO, environ: dict[str, str], level: str = "info") -> None:
        handler = log.set_up(level, stream, environ)
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
