"""docs/event-manager.md: its daemon runs, and its names are the code's."""

from __future__ import annotations

import dataclasses
import re
import signal
import subprocess
import sys

import pytest
from events_support import ROOT

from agent.events import Stats, WorkStats

PAGE = (ROOT / "docs" / "event-manager.md").read_text()
DAEMON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]


def test_the_daemon_is_as_short_as_the_page_says() -> None:
    assert len([line for line in DAEMON.splitlines() if line.strip()]) <= 36


def test_the_daemon_counts_and_ends_at_the_end_of_its_input() -> None:
    text = "one two three\n" * 1000 + "four\n"
    result = subprocess.run(
        [sys.executable, "-c", DAEMON], input=text, capture_output=True, text=True, timeout=30, cwd=ROOT, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "3001 words"


def test_the_daemon_reports_every_second_and_ends_on_sigterm() -> None:
    daemon = subprocess.Popen(
        [sys.executable, "-c", DAEMON], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert daemon.stdin is not None
    assert daemon.stdout is not None
    with daemon:
        daemon.stdin.write("two words\n")
        daemon.stdin.flush()
        assert daemon.stdout.readline() == "2 words\n"
        daemon.send_signal(signal.SIGTERM)
        assert daemon.stdout.read() == "2 words\n"
        daemon.stdin.close()
    assert daemon.returncode == 0


@pytest.mark.parametrize("stats", [Stats, WorkStats])
def test_every_figure_is_explained(stats: type) -> None:
    table = PAGE[PAGE.index("## stats()") : PAGE.index("## What it costs")]
    for field in dataclasses.fields(stats):
        if field.name != "work":
            assert re.search(rf"[`.]{field.name}`", table), field.name
