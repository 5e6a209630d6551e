"""The page's examples run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests_shared import ROOT, plugin, run_pytest

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "testing.md").read_text(), re.DOTALL)


def test_the_fifteen_lines_pass(tmp_path: Path) -> None:
    example = BLOCKS[0]
    assert len(example.splitlines()) <= 16
    (tmp_path / "test_example.py").write_text(example)
    result = run_pytest(tmp_path, *plugin())
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 passed" in result.stdout


def test_the_example_of_a_driver_passes(tmp_path: Path) -> None:
    (example,) = (block for block in BLOCKS if "def test_a_bad_line_is_a_fault" in block)
    (tmp_path / "test_example.py").write_text(example)
    result = run_pytest(tmp_path, *plugin())
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_device_has_all_that_the_page_shows(tmp_path: Path) -> None:
    """The block about PtyPort is a list, no test: its calls are made beside a program that reads."""
    (listing,) = (block for block in BLOCKS if "device.flood(" in block)
    listing = listing.replace("100_000", "5_000")
    program = tmp_path / "program.py"
    program.write_text(
        "import threading, serial\n"
        + listing.replace(
            '    device.send("t=21.5")  ',
            "    port = serial.Serial(device.path)\n"
            "    port.write(b'RST\\r')\n"
            "    threading.Thread(target=lambda: [port.read(1000) for _ in iter(int, 1)], daemon=True).start()\n"
            '    device.send("t=21.5")  ',
        )
        + "    print('done', flush=True)\n    import os; os._exit(0)\n"
    )
    result = subprocess.run(
        [sys.executable, str(program)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert result.stdout == "done\n", result.stderr
