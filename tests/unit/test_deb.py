"""The Debian package, as far as can be told without building it; `make deb-test` installs it and boots what has it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

DEB = Path(__file__).resolve().parents[2] / "deploy" / "deb"


@pytest.mark.parametrize("name", ["preinst", "postinst", "prerm", "postrm", "outstation.rtupdate"])
def test_the_scripts_of_the_package_are_shell(name: str) -> None:
    script = DEB / name
    assert script.read_text().startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n", str(script)], check=True, timeout=30)


def refusal(tmp_path: Path, arch: str, machine: str) -> tuple[int, str]:
    for name, says in (("dpkg", arch), ("uname", machine)):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {says}\n")
        (tmp_path / name).chmod(0o755)
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    command = ["sh", str(DEB / "preinst"), "install"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "board", [("amd64", "x86_64"), ("arm64", "aarch64"), ("armhf", "armv7l"), ("armhf", "aarch64")]
)
def test_the_package_takes_a_board_that_it_has_modules_for(tmp_path: Path, board: tuple[str, str]) -> None:
    assert refusal(tmp_path, *board) == (0, "")


@pytest.mark.parametrize(
    "board", [("armhf", "armv6l"), ("armel", "armv6l"), ("riscv64", "riscv64"), ("i386", "x86_64")]
)
def test_the_package_refuses_other_boards_with_a_remedy(tmp_path: Path, board: tuple[str, str]) -> None:
    status, said = refusal(tmp_path, *board)
    assert status == 1
    assert "pipx" in said


def test_the_manual_page_names_every_command_and_is_good_roff() -> None:
    from agent.cli import cli

    command = [sys.executable, str(DEB / "manpage.py")]
    page = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    for name in cli.list_commands(click.Context(cli)):
        assert f'.SS "outstation {name} '.replace("-", "\\-") in page
    assert not re.search(r"^\.(?![A-Z]{2}\b|nf$|fi$)", page, re.MULTILINE), "a line of text that reads as a macro"
    assert not re.search(r"(?<!\\)-", page.partition(".SH DESCRIPTION")[2]), "a hyphen where one would copy an option"
