"""Installs the Debian package in a fresh Debian, boots that by systemd-nspawn, and goes through a board's life with it.

python deploy/deb/life.py DEB NEWER [--tree DIR]    (`make deb-test`, as root; three minutes; two builds of build.py)

A subscriber outside (`outstation verify`) judges by the readings' numbers whether anything was lost over all of it:
SIGSTOP and the watchdog, an upgrade, a reboot. The broker is a Mosquitto with TLS and a password on loopback. All is
made below one temporary folder (TMPDIR) and ended by process id. The container gets a unified cgroup hierarchy of its
own: DeviceAllow= works with it; limits of memory and tasks do not where the machine has those controllers elsewhere.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUITE = "bookworm"
AGENT = "board-1"
SERVICE = "/sys/fs/cgroup/system.slice/outstation.service/cgroup.procs"
ENVIRONMENT = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
PASSWORD = secrets.token_hex(12)
STARTED = time.monotonic()

OPEN = """
import os, sys
try:
    os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    print("opened")
except OSError as error:
    print(error.strerror)
"""


def say(text: str) -> None:
    print(f"{time.monotonic() - STARTED:6.1f} s  {text}", flush=True)


def until(what: str, condition: Callable[[], object], seconds: float) -> object:
    """Wait for a condition; whoever waits in vain is told for what."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            sys.exit(f"waited {seconds:g} s in vain: {what}")
        time.sleep(0.2)
    return found


def expect(what: str, is_so: object, found: object = "") -> None:
    if not is_so:
        sys.exit(f"NOT SO: {what}: {found}")
    say(f"{what}{f': {found}' if found != '' else ''}")


class Board:
    """A Debian in a folder, booted by systemd-nspawn. The network is the machine's own."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self._nspawn: subprocess.Popen[bytes] | None = None

    def make(self, copy_of: Path | None) -> None:
        """copy_of: a debootstrap tree, for who runs this often."""
        if copy_of is not None:
            subprocess.run(["cp", "--archive", "--reflink=auto", str(copy_of), str(self.tree)], check=True)
            return
        uris = subprocess.run(
            ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", f"Codename: {SUITE}"],
            check=True, capture_output=True, text=True,
        ).stdout.split()  # fmt: skip
        include = "--include=systemd-sysv,dbus,udev,ca-certificates"
        subprocess.run(
            ["debootstrap", "--variant=minbase", include, SUITE, str(self.tree), uris[0]],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        (self.tree / "etc/hostname").write_text(f"{AGENT}\n")

    def boot(self) -> None:
        script = "umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup && exec systemd-nspawn " + shlex.join(
            [
                "--quiet",
                "--directory",
                str(self.tree),
                "--boot",
                "--system-call-filter=bpf",
                "--capability=CAP_BPF,CAP_NET_ADMIN",
                "--register=no",
                "--keep-unit",
                "--link-journal=no",
                "--console=pipe",
            ]
        )
        self._nspawn = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.wait_until_up()

    def wait_until_up(self) -> None:
        def up() -> bool:
            return self.leader() is not None and self.run("systemctl is-system-running", check=False).strip() in (
                "running",
                "degraded",
            )

        until("the board is up", up, 60)

    def leader(self) -> int | None:
        """Its process 1, as the machine sees it."""
        if self._nspawn is None or self._nspawn.poll() is not None:
            return None
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split()
        pids = [int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text().strip() in ("systemd", "init")]
        return pids[-1] if pids else None

    def run(self, command: str, *, check: bool = True, timeout: float = 300) -> str:
        done = subprocess.run(
            ["nsenter", f"--target={self.leader()}", "--all", "env", "-i", *ENVIRONMENT, "sh", "-c", command],
            capture_output=True, text=True, check=False, timeout=timeout,
        )  # fmt: skip
        if check and done.returncode:
            sys.exit(f"{command}: status {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        return done.stdout + done.stderr

    def property(self, name: str) -> str:
        return self.run(f"systemctl show -P {name} outstation").strip()

    def reboot(self) -> None:
        assert self._nspawn is not None
        self.run("systemctl reboot", check=False)
        # With --keep-unit it leaves the new start to whoever started it (systemd-nspawn(1), "EXIT STATUS").
        expect("systemctl reboot", self._nspawn.wait(60) == 133)
        self.boot()

    def off(self) -> None:
        if self._nspawn is not None and self._nspawn.poll() is None:
            if self.leader() is not None:
                self.run("systemctl poweroff", check=False)
            try:
                self._nspawn.wait(30)
            except subprocess.TimeoutExpired:
                self._nspawn.kill()


def broker(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Mosquitto with TLS and one user; its CA is folder/ca.crt."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    key, crt = folder / "ca.key", folder / "ca.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(crt)],
        check=True, capture_output=True,
    )  # fmt: skip
    subprocess.run(
        ["mosquitto_passwd", "-b", "-c", str(folder / "passwd"), AGENT, PASSWORD], check=True, capture_output=True
    )
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\ncafile {crt}\ncertfile {crt}\nkeyfile {key}\nallow_anonymous false\n"
        f"password_file {folder}/passwd\nuser root\n"
    )
    return subprocess.Popen(
        ["mosquitto", "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ), port


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("deb", "newer"):
        parser.add_argument(name, type=lambda path: Path(path).resolve(strict=True))
    parser.add_argument("--tree", type=Path)
    arguments = parser.parse_args()
    deb, newer = arguments.deb, arguments.newer
    with tempfile.TemporaryDirectory(prefix="outstation-deb-test-") as name:
        folder = Path(name)
        mosquitto, port = broker(folder)
        board = Board(folder / "tree")
        judge: subprocess.Popen[str] | None = None
        try:
            board.make(arguments.tree)
            say(f"a fresh {SUITE}, by debootstrap")
            board.boot()
            (board.tree / "srv/deb").mkdir()
            for one in (deb, newer):
                shutil.copy(one, board.tree / "srv/deb")
            (folder / "password").write_text(PASSWORD)
            judge = subprocess.Popen(
                [
                    *(sys.executable, "-m", "agent", "verify", "--json", "--url", f"mqtts://127.0.0.1:{port}"),
                    *("--ca-file", folder / "ca.crt", "--username", AGENT, "--password-file", folder / "password"),
                ],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            life(board, deb, newer, port, folder / "ca.crt")
            judge.send_signal(signal.SIGINT)
            out, err = judge.communicate(timeout=30)
            verdict = json.loads(out)
            print(json.dumps(verdict, indent=1))
            expect(
                "verify, which watched all of it, ends with status", judge.returncode == 0, f"{judge.returncode} {err}"
            )
            leave(board, deb)
            say("all of it is so")
        except SystemExit:
            if board.leader() is not None:
                print(board.run("journalctl -u outstation --no-pager -n 40; outstation status", check=False))
            raise
        finally:
            if judge is not None and judge.poll() is None:
                judge.kill()
            board.off()
            mosquitto.terminate()
            mosquitto.wait()


def life(board: Board, deb: Path, newer: Path, port: int, ca: Path) -> None:
    board.run("apt-get update -q")
    began = time.monotonic()
    out = board.run(f"apt-get install -q -y --no-install-recommends ./srv/deb/{deb.name} 2>&1")
    expect(
        "apt install ./outstation_*.deb",
        "edit /etc/outstation/outstation.toml" in out,
        f"{time.monotonic() - began:.0f} s",
    )
    expect(
        "not started, but enabled",
        board.property("UnitFileState") == "enabled" and board.property("ActiveState") == "inactive",
    )
    expect("its user", "dialout" in board.run("id outstation"), board.run("id outstation").strip())
    expect("dpkg -V", board.run("dpkg -V outstation") == "", "nothing")
    expect("the command", True, board.run("outstation --version").strip())

    # As the administrator does: the broker, its certificate, who we are; and the password for root's eyes.
    shutil.copy(ca, board.tree / "etc/outstation/ca.crt")
    toml = board.tree / "etc/outstation/outstation.toml"
    text = toml.read_text()
    for old, new in (
        (r"^urls = .*$", f'urls = ["mqtts://127.0.0.1:{port}"]'),
        (r"^#ca_file = .*$", 'ca_file = "/etc/outstation/ca.crt"'),
        (r"^#username = .*$", f'username = "{AGENT}"'),
    ):
        text, count = re.subn(old, new, text, flags=re.MULTILINE)
        assert count == 1, old
    toml.write_text(text)
    (board.tree / "etc/outstation/outstation.d").mkdir()
    (board.tree / "etc/outstation/outstation.d/test.toml").write_text(
        '[outbox]\ndurability = "strict"\n[[device]]\nname = "fast"\ndriver = "host"\ninterval = 0.5\n'
    )
    drop_ins = "/etc/systemd/system/outstation.service.d"
    board.run(f"(umask 077; printf %s {PASSWORD} > /etc/outstation/mqtt-password); mkdir -p {drop_ins}")
    board.run(f"cp /usr/share/doc/outstation/examples/password.conf {drop_ins}/; systemctl daemon-reload")
    board.run("outstation check")
    board.run("systemctl start outstation")
    expect("systemctl start", board.property("ActiveState") == "active", board.property("StatusText"))
    report = until("readings at the broker", lambda: delivered(board), 30)
    expect("readings in a TLS broker", report, report)
    print(board.run("systemctl status --no-pager --lines=0 outstation"))

    credentials(board)
    devices(board)

    # The kernel stops it: no loop turns, nobody feeds the watchdog.
    pid = board.property("MainPID")
    began = time.monotonic()
    board.run(f"kill -STOP {pid}")
    until("the watchdog", lambda: board.property("NRestarts") == "1" and board.property("ActiveState") == "active", 120)
    expect("SIGSTOP: the watchdog ended it, and it runs again after", True, f"{time.monotonic() - began:.0f} s")
    until("readings again", lambda: delivered(board), 30)

    before = toml.read_bytes()
    pid = board.property("MainPID")
    board.run(f"apt-get install -q -y --no-install-recommends ./srv/deb/{newer.name} 2>&1")
    expect(
        "upgrade",
        board.property("MainPID") != pid and board.property("ActiveState") == "active",
        board.run("dpkg-query -W outstation").strip(),
    )
    expect("the configuration is kept", toml.read_bytes() == before)
    until("readings again", lambda: delivered(board), 30)

    board.reboot()
    until("the service after a reboot", lambda: board.property("ActiveState") == "active", 60)
    say("reboot: the service is back by itself")
    until("readings again", lambda: delivered(board), 30)
    board.run("systemctl stop outstation")
    expect("systemctl stop", board.property("Result") == "success", board.property("ExecMainStatus"))


def delivered(board: Board) -> str:
    """How much the running agent delivered since its start; "" so long as it is nothing."""
    try:
        report = json.loads(board.run("outstation status --json", check=False))
    except ValueError:
        return ""
    readings = report["readings"]
    return f"{readings['written']} of {readings['added']}" if readings["written"] > 5 else ""


def credentials(board: Board) -> None:
    """The password, for others than root and the service."""
    for path in ("/etc/outstation/mqtt-password", "/run/credentials/outstation.service/mqtt-password"):
        for user in ("nobody", "outstation"):
            if (user, path) == ("outstation", "/run/credentials/outstation.service/mqtt-password"):
                continue  # the service's own: it must be able to
            out = board.run(f"runuser -u {user} -- cat {path}", check=False)
            expect(f"{path} as {user}", PASSWORD not in out and "denied" in out, out.strip().rpartition(": ")[2])
    out = board.run(
        "cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n'; journalctl -u outstation --no-pager",
        check=False,
    )
    expect("the password is in no environment, command line or log", PASSWORD not in out)


def devices(board: Board) -> None:
    """Which device nodes a process of the service may open. The modes and the group would allow both."""
    board.run("mknod -m 660 /dev/ttyS7 c 4 71; mknod -m 660 /dev/other c 10 229; chgrp dialout /dev/ttyS7 /dev/other")
    (board.tree / "srv/open.py").write_text(OPEN)

    def opened(path: str, *, inside: bool) -> str:
        enter = f"echo $$ > {SERVICE};" if inside else ""
        as_it = "setpriv --reuid outstation --regid outstation --init-groups"
        return board.run(f"{enter} exec {as_it} /usr/bin/python3 - {path} < /srv/open.py", check=False).strip()

    outside, listed, other = (
        opened("/dev/other", inside=False),
        opened("/dev/ttyS7", inside=True),
        opened("/dev/other", inside=True),
    )
    expect("a device that is not listed (10:229, fuse), outside of the service", outside == "opened", outside)
    expect("the same, from the service", other == "Operation not permitted", other)
    expect("a serial port (4:71), from the service", listed != "Operation not permitted", listed)


def leave(board: Board, deb: Path) -> None:
    board.run("apt-get remove -q -y outstation 2>&1")
    kept = board.run(
        "ls /etc/outstation/outstation.toml /var/lib/outstation/outbox.db; ls /opt/outstation", check=False
    )
    expect("remove keeps configuration and outbox, and nothing of the program", kept.count("No such") == 1, "")
    board.run(f"apt-get install -q -y --no-install-recommends ./srv/deb/{deb.name} 2>&1; systemctl start outstation")
    expect("installed again: goes on where it was", until("readings", lambda: delivered(board), 30))
    board.run("apt-get purge -q -y outstation 2>&1")
    left = board.run(
        "find / -xdev -name '*outstation*' -not -path '/proc/*' -print; getent passwd outstation", check=False
    )
    left = "\n".join(
        line
        for line in left.splitlines()
        if not line.startswith(("/srv/", "/var/log/", "/var/lib/systemd/", "/tmp/", "/run/"))
    )
    expect("purge leaves nothing", left == "", left)


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("this boots a container: run it as root, `sudo make deb-test`")
    main()
