"""Child processes that never outlive their test, even one that is killed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

# prctl(PR_SET_PDEATHSIG) survives execve(2), so that the process becomes the very command. Set by a Python in between
# and not by preexec_fn, which may deadlock where there are threads. Costs 15 ms.
_BOUND = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    raise SystemExit("its parent died before it began")
os.execvp(sys.argv[2], sys.argv[2:])
"""

_SYSTEMD = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


def start(
    command: Sequence[str], *, output: IO[bytes] | int, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start command in a session of its own: Ctrl-C is for the caller, who ends it in order.

    It gets SIGTERM when the thread that calls this ends, however that ends. Standard input is empty; standard output
    and error go to output, which may be subprocess.PIPE. Raises OSError.
    """
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _BOUND, str(os.getpid()), *command],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd=cwd,
        env=env,
        start_new_session=True,
    )


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a child that shall find this very ``agent``, installed or in a source tree.

    systemd's words to us are not for the child: its READY would be taken for ours.
    """
    environ = {name: value for name, value in os.environ.items() if name not in _SYSTEMD}
    root = Path(__file__).resolve().parents[2]
    if root.name not in (
        "site-packages",
        "dist-packages",
    ):  # there it is found, and would go before the standard library
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), environ.get("PYTHONPATH")]))
    return {**environ, **(extra or {})}


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def end(process: subprocess.Popen[bytes], timeout: float = 5.0) -> int:
    """SIGTERM, then SIGKILL after timeout seconds; reaps it. Its exit status."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()
