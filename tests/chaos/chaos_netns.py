"""Two network namespaces with a cable between them, which can swallow everything. Needs root, ip, nsenter and nft."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

_CLONE_NEWNET = 0x40000000
_ESTABLISHED = "01"  # include/net/tcp_states.h


class Network:
    """``near`` and ``far``, each with a loopback of its own. They live as long as two processes that do nothing."""

    address = "192.0.2.1"  # of the far end; RFC 5737: belongs to nobody
    _near_address = "192.0.2.2"

    def __enter__(self) -> Self:
        # cat ends with its standard input: with us, however we end.
        hold = ["unshare", "--net", "sh", "-c", "echo ready; exec cat"]
        self._holders = [subprocess.Popen(hold, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in ("near", "far")]
        for holder in self._holders:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"ready\n"
        near, far = self._holders
        self._in(near, f"ip link add cable type veth peer name cable netns {far.pid}")
        for holder, address in ((near, self._near_address), (far, self.address)):
            self._in(holder, "ip link set lo up", f"ip address add {address}/24 dev cable", "ip link set cable up")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for holder in self._holders:
            assert holder.stdin is not None
            assert holder.stdout is not None
            holder.stdin.close()
            holder.wait()
            holder.stdout.close()

    @contextmanager
    def _thread_in(self, holder: subprocess.Popen[bytes]) -> Iterator[None]:
        """This thread, and the threads and processes that it starts, are in the holder's namespace (setns(2))."""
        libc = ctypes.CDLL(None, use_errno=True)
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        other = os.open(f"/proc/{holder.pid}/ns/net", os.O_RDONLY)
        try:
            if libc.setns(other, _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
            try:
                yield
            finally:
                libc.setns(home, _CLONE_NEWNET)
        finally:
            os.close(home)
            os.close(other)

    def near(self) -> AbstractContextManager[None]:
        return self._thread_in(self._holders[0])

    def far(self) -> AbstractContextManager[None]:
        return self._thread_in(self._holders[1])

    def drop(self) -> None:
        """Swallow all that arrives at either end. Who sends gets no error, and no answer."""
        for holder in self._holders:
            self._in(
                holder,
                "nft add table inet hole",
                "nft add chain inet hole swallow { type filter hook prerouting priority 0 ; policy drop ; }",
            )

    def mend(self) -> None:
        for holder in self._holders:
            self._in(holder, "nft delete table inet hole")

    def connected(self, port: int) -> bool:
        """Whether the near end has an established connection to that port, by the kernel's table (proc_net_tcp)."""
        table = Path(f"/proc/{self._holders[0].pid}/net/tcp").read_text().splitlines()[1:]
        return any(
            fields[3] == _ESTABLISHED and int(fields[2].rpartition(":")[2], 16) == port
            for fields in map(str.split, table)
        )

    @staticmethod
    def _in(holder: subprocess.Popen[bytes], *commands: str) -> None:
        for command in commands:
            enter = ["nsenter", "--net", "--target", str(holder.pid), *command.split()]
            subprocess.run(enter, check=True, capture_output=True, timeout=10)
