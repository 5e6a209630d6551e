"""A benchmark that is told to end leaves nothing behind, also below the one that runs them all."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from started import Started

STAGE = """
import signal
from bench import common

with common.stage() as stage:
    child = stage.run(["sleep", "600"], "sleeper")
    print(stage.broker.process.pid, child.pid, stage.folder, "ready", flush=True)
    signal.pause()
"""
ABOVE = f"import sys; from bench import common; common.run([sys.executable, '-c', {STAGE!r}])"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("script", [STAGE, ABOVE], ids=["one", "all"])
def test_what_it_has_started_ends_with_it(script: str, number: signal.Signals) -> None:
    bench = Started([sys.executable, "-c", script], {**os.environ})
    bench.wait_for(lambda output: "ready" in output)
    broker, child, folder, _ = bench.output.split()
    assert Path(f"/proc/{broker}").exists()
    bench.process.send_signal(number)
    assert bench.end() == 128 + number
    assert not Path(f"/proc/{broker}").exists()
    assert not Path(f"/proc/{child}").exists()
    assert not Path(folder).exists()
