"""The plugin in somebody else's project: it costs nothing unasked, clashes with nothing, and shows what it knows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests_shared import ROOT, plugin, run_pytest


def test_loading_the_plugin_imports_nothing_heavy() -> None:
    code = """if True:
        import sys, pytest
        before = set(sys.modules)
        import agent.testing.plugin
        print(*sorted({m.split('.')[0] for m in set(sys.modules) - before} | {m for m in set(sys.modules) - before}))
    """
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(result.stdout.split()) == {"agent", "agent.testing", "agent.testing.plugin"}


def test_a_project_with_fixtures_of_the_short_names_keeps_them(tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(
        "import pytest\n"
        "@pytest.fixture\n"
        "def mqtt_broker():\n    return 'mine'\n"
        "@pytest.fixture\n"
        "def serial_device():\n    return 'mine too'\n"
        "def test_both(mqtt_broker, serial_device, outstation, outstation_device):\n"
        "    assert (mqtt_broker, serial_device) == ('mine', 'mine too')\n"
        "    outstation_device.send('{\"t\": 1}')\n"
        "    assert outstation.next_reading('serial').fields == {'t': 1}\n"
    )
    result = run_pytest(tmp_path, *plugin())
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_failed_test_shows_the_agents_log_and_what_did_arrive(tmp_path: Path) -> None:
    (tmp_path / "test_fails.py").write_text(
        "def test_it(outstation, serial_device):\n"
        "    serial_device.send('{\"t\": 1}')\n"
        "    outstation.next_reading('serial')\n"
        "    outstation.next_reading('serial', timeout=0.1)\n"
    )
    result = run_pytest(tmp_path, *plugin())
    assert result.returncode == 1
    assert "no reading 2 of serial" in result.stdout
    assert '"fields":{"t":1}' in result.stdout
    assert "log of agent 1" in result.stdout
    assert "device.online device=serial" in result.stdout


def test_a_configuration_that_is_wrong_fails_at_once_with_the_agents_words(tmp_path: Path) -> None:
    (tmp_path / "test_wrong.py").write_text(
        "import pytest\n"
        "@pytest.fixture\n"
        "def outstation_config():\n    return '[agent]\\nidd = 1\\n'\n"
        "def test_it(outstation):\n    pass\n"
    )
    result = run_pytest(tmp_path, *plugin())
    assert result.returncode == 1
    assert "the agent ended with status 78" in result.stdout
    assert "idd" in result.stdout


SKIPS = """
import pytest
def test_inside(): pytest.skip("no nft here")
@pytest.mark.skipif(True, reason="wrong kernel")
def test_marked(): pass
@pytest.mark.xfail(reason="known")
def test_expected_to_fail(): assert False
@pytest.fixture
def missing(): pytest.skip("no broker here")
def test_in_a_fixture(missing): pass
"""


def skipping(tmp_path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "test_skips.py").write_text(SKIPS)
    (tmp_path / "test_whole.py").write_text("import pytest\npytest.importorskip('no_such_module_here')\n")
    return run_pytest(tmp_path, "--continue-on-collection-errors", **env)


def test_skips_are_listed_with_their_reasons(tmp_path: Path) -> None:
    result = skipping(tmp_path, CI="")
    assert result.returncode == 0, result.stdout
    for line in (
        "not checked on this machine",
        "test_skips.py::test_inside: no nft here",
        "test_skips.py::test_marked: wrong kernel",
        "test_skips.py::test_in_a_fixture: no broker here",
        "test_whole.py: could not import 'no_such_module_here'",
    ):
        assert line in result.stdout


def test_in_ci_every_skip_is_a_failure_that_says_why(tmp_path: Path) -> None:
    result = skipping(tmp_path, CI="true")
    assert result.returncode == 1, result.stdout
    for line in (
        "test_skips.py::test_inside was skipped, and in CI every check has to run: no nft here",
        "test_skips.py::test_marked was skipped, and in CI every check has to run: wrong kernel",
        "test_skips.py::test_in_a_fixture was skipped, and in CI every check has to run: no broker here",
        "test_whole.py was skipped, and in CI every check has to run: could not import",
        "1 xfailed",
    ):
        assert line in result.stdout
    assert "passed" not in result.stdout
