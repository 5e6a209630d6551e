"""Completion in shells: the scripts, and what they are answered."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli import cli
from agent.ports_list import SerialDevice


def script(shell: str) -> str:
    result = CliRunner().invoke(cli, ["completion", shell], prog_name="outstation")
    assert result.exit_code == 0
    return result.output


def answered(shell: str, *words: str) -> str:
    """What `outstation` answers such a script: the last word is the one that is being typed."""
    env = {
        "_OUTSTATION_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": " ".join(words) if shell != "fish" else " ".join(words[:-1]),
        "COMP_CWORD": str(len(words) - 1) if shell != "fish" else words[-1],
    }
    return CliRunner(env=env).invoke(cli, [], prog_name="outstation").output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script_and_gets_answers(shell: str) -> None:
    assert f"_OUTSTATION_COMPLETE={shell}_complete" in script(shell)
    assert "doctor" in answered(shell, "outstation", "doc")
    assert "lines" in answered(shell, "outstation", "drivers", "lin")
    assert "modbus" not in answered(shell, "outstation", "drivers", "lin")
    assert "warning" in answered(shell, "outstation", "run", "--log-level", "w")
    assert "file" in answered(shell, "outstation", "check", "-c", "my")


def test_another_shell_is_refused() -> None:
    result = CliRunner().invoke(cli, ["completion", "tcsh"])
    assert result.exit_code == 2
    assert "bash" in result.output


def test_ports_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    here = [SerialDevice("/dev/ttyUSB7", "ftdi_sio", None, ()), SerialDevice("/dev/ttyS0", "serial8250", None, ())]
    monkeypatch.setattr("agent.ports_list.serial_devices", lambda: here)
    assert answered("bash", "outstation", "probe", "/dev/ttyU").split() == ["plain,/dev/ttyUSB7"]
    assert answered("bash", "outstation", "init", "--port", "/dev/ttyS").split() == ["plain,/dev/ttyS0"]


def test_a_real_bash_completes(tmp_path: Path) -> None:
    program = tmp_path / "outstation"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m agent "$@"\n')
    program.chmod(0o755)
    (tmp_path / "script").write_text(script("bash"))
    typed = ". ./script; COMP_WORDS=(outstation drivers lin); COMP_CWORD=2; _outstation_completion outstation"
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = ["bash", "--norc", "-c", typed + '; echo "${COMPREPLY[@]}"']
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "lines\n", done.stderr
