"""The command `install-service`: the Debian package's unit, for an agent that came by pipx or into an environment."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

import click

from agent.cli_config import config_option, load_config
from agent.config import Config
from agent.ports_list import is_usb

UNIT = "outstation.service"
FOLDER = Path("/etc/systemd/system")
DROP_IN = FOLDER / f"{UNIT}.d" / "50-configured.conf"
PACKAGED = Path("/usr/lib/systemd/system") / UNIT
CONFIG = "/etc/outstation"
CONFIG_FILE = f"{CONFIG}/outstation.toml"
PROGRAM = "/opt/outstation/bin/outstation"
EXEC_START = f"ExecStart={PROGRAM} run -c {CONFIG_FILE}"
STATE = "/var/lib/outstation"
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
"""What ProtectHome= and PrivateTmp= take out of the service's sight (systemd.exec(5))."""
SERIAL = ("ttyS", "ttyAMA", "ttyUSB", "ttyACM")
"""The kernel's names of serial ports, as /proc/devices has them."""
USB = ("ttyUSB", "ttyACM")
GROUPS = ("dialout", "gpio")
HEAD = "# Written by `outstation install-service` for the devices of {file}; run it again when others are added.\n"


class Refused(click.ClickException):
    """Ends the command with status 1: nothing was written."""


@click.command(short_help="Write the systemd unit for this installation.")
@config_option
@click.option("--dry-run", is_flag=True, help="Only show what would be written.")
def install_service(file: str, dry_run: bool) -> None:
    """Write the systemd unit for this installation, and a drop-in that allows the devices of the configuration alone.

    With the Debian package the unit is there: then the drop-in alone is written. Nothing is started. Run it again after
    a device of another kind was added to the configuration.

    \b
    Examples:
      outstation install-service --dry-run
      sudo outstation install-service -c /etc/outstation/outstation.toml
    """
    config = load_config(file)
    program, file = program_path(), os.path.abspath(file)
    if problem := unreachable(config, program):
        raise Refused(problem)
    texts = {DROP_IN: drop_in(config, file, groups())}
    if not PACKAGED.exists():
        texts = {FOLDER / UNIT: unit(program, file), **texts}
    elif (os.path.realpath(program), file) != (PROGRAM, CONFIG_FILE):
        raise Refused(
            f"{PACKAGED} belongs to the Debian package, which runs {PROGRAM} with {CONFIG_FILE}; use those, or remove "
            "the package first: apt remove outstation"
        )
    if dry_run:
        for path, text in texts.items():
            click.echo(f"---- {path}\n{text}")
        return
    if os.geteuid() != 0:
        raise Refused(f"{FOLDER} is root's: run `sudo {program} install-service -c {file}`, or see --dry-run")
    for path, text in texts.items():
        click.echo(f"{write(path, text)} {path}")
    if os.path.isdir("/run/systemd/system"):  # sd_booted(3)
        reload_units()
        click.echo(f"next: systemctl enable --now {UNIT}; for one that runs: systemctl restart {UNIT}")
    else:
        click.echo(f"systemd does not run here; where it does: systemctl enable --now {UNIT}")


def program_path() -> str:
    """Where this command lies, for ExecStart=. A link stays one: pipx keeps it over its upgrades."""
    found = shutil.which(sys.argv[0])
    return os.path.abspath(found or os.path.join(os.path.dirname(sys.executable), "outstation"))


def unreachable(config: Config, program: str) -> str | None:
    """Why the service could not run so, with the remedy."""
    for path in (program, os.path.realpath(program), sys.prefix):
        if below(path, HIDDEN):
            return (
                f"{path} is where the service does not see it (ProtectHome=, PrivateTmp=); install for all users: "
                "PIPX_HOME=/opt/pipx PIPX_BIN_DIR=/usr/local/bin pipx install outstation"
            )
    for path in map(os.path.abspath, config.files):
        if below(path, HIDDEN):
            return f"{path} is where the service does not see it (ProtectHome=, PrivateTmp=); move it below {CONFIG}"
    outbox = config.outbox.path
    if outbox is not None and not below(str(outbox), (STATE,)):
        return (
            f"outbox.path = {outbox}: the service writes below {STATE} alone; leave the key out, or name a file there"
        )
    return None


def below(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def groups() -> list[str]:
    """Groups to ask for: none where the package's user has them; else those that exist: others would stop the start."""
    try:
        pwd.getpwnam("outstation")
    except KeyError:
        known = {group.gr_name for group in grp.getgrall()}
        return [name for name in GROUPS if name in known]
    return []


def unit(program: str, file: str) -> str:
    text = files("agent").joinpath("service", UNIT).read_text(encoding="utf-8")
    assert EXEC_START in text, "the unit and this command disagree"
    return text.replace(EXEC_START, f"ExecStart={word(program)} run -c {word(file)}")


def word(text: str) -> str:
    """One word of ExecStart= (systemd.service(5), "COMMAND LINES"; systemd.unit(5), "SPECIFIERS")."""
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"' if re.search(r"[\s'\";]", text) else text


def drop_in(config: Config, file: str, groups: Iterable[str]) -> str:
    lines = ["[Service]"]
    if found := " ".join(groups):
        lines.append(f"SupplementaryGroups={found}")
    lines.append("DeviceAllow=")  # forgets those of the unit
    lines += [f"DeviceAllow=char-{name} rw" for name in sorted(set(classes(config)))]
    return HEAD.format(file=file.replace("\n", " ")) + "\n".join(lines) + "\n"


def classes(config: Config) -> Iterator[str]:
    """The kernel's device classes of what is configured, as DeviceAllow=char-... names them.

    A class and not a node: an adapter that is plugged in again may come as another node of its class, and systemd
    resolves a node's name once, at the start.
    """
    for device in config.devices:
        if device.config.driver == "gpio":
            yield "gpiochip"
        port = getattr(device.config, "port", None)
        if isinstance(port, str) and (is_usb(port) or port.startswith("/dev/serial/by-")):
            yield from USB
        elif isinstance(port, str) and port.startswith("/dev/"):
            named = re.fullmatch(r"/dev/(tty[A-Za-z]+)\d+", os.path.realpath(port))
            # A link that is not there now may lead to any of them.
            yield from [named[1]] if named else SERIAL


def write(path: Path, text: str) -> str:
    """Whole or not at all. Returns what was done: "written", "replaced" or "unchanged"."""
    done = "written"
    if path.exists():
        if path.read_text(encoding="utf-8", errors="replace") == text:
            return "unchanged"
        done = "replaced"
    new = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(text, encoding="utf-8")
        new.chmod(0o644)
        new.replace(path)
    except OSError as error:
        with suppress(OSError):
            new.unlink()
        raise Refused(f"{path} cannot be written: {error.strerror}; mend that and run it again") from error
    return done


def reload_units() -> None:
    done = subprocess.run(["systemctl", "daemon-reload"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"written, but `systemctl daemon-reload` failed: {done.stderr.strip()}")
