"""Waiting: epoll with time-outs of a microsecond, and an epoll that can be built anew under way.

Facts about epoll that the code here and in descriptors.py rests on (epoll(7); measured on Linux 5.10 to 6.18):

1. An entry belongs to a pair (file, number), where "file" is the open file description that dup(2) shares. Closing
   the number takes the entry away only if no duplicate keeps the file alive (a fork, a subprocess that inherited it,
   dup).
2. If one does, epoll goes on reporting the closed number, for ever, and the entry can no longer be named:
   EPOLL_CTL_DEL and MOD look up the number first and answer EBADF, or ENOENT when it is another file by now. Only a
   new epoll gets rid of it.
3. Hence EPOLL_CTL_MOD is the question "is this number still the file that I registered?": 0 is yes, EBADF or ENOENT
   no. It costs a system call, about half of what a read of a pipe costs.
4. EPOLL_CTL_ADD of a number whose old file is gone succeeds, beside the entry that fact 2 may have left behind.
5. ERR and HUP are reported whatever mask is asked for; a mask of 0 does not silence them. EPOLLONESHOT does: after
   one report the entry sleeps until the next MOD.
6. Level-triggered entries that are reported go to the end of the ready list: with more ready than fit one call, the
   next call begins with those that were left out. Nobody starves.
7. Regular files and directories are refused with EPERM: they are always ready.
8. The time-out is in whole milliseconds, and Python rounds it up: a timer by it would be 0.5 ms late on average and 1
   ms at worst.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterable
from time import monotonic

FD_SETSIZE = 1024  # select(2) cannot name a descriptor from here up
COARSE = 0.005  # seconds: time-outs below this are not worth two calls
LONGEST_WAIT = 86400.0  # seconds; wakes once a day for nothing, and keeps any due time within every system call's range


class Poller:
    """An epoll whose ``wait`` is as punctual as the kernel's timers.

    How it waits, and why (docs/decisions/001):

    * Without a time-out by epoll_wait alone: one system call for whatever comes.
    * With one, by select(2) on the epoll's own descriptor, which is readable while something is ready, and whose
      time-out is in microseconds; then by epoll_wait if there is something. One call for a timer, two for a
      descriptor.
    * After a wait that a descriptor ended, the next one is likely to be ended by a descriptor, too: by epoll_wait with
      its milliseconds rounded down. One call for a descriptor; only when the time-out gets its turn after all, less
      than a millisecond of it is left for select.
    * A busy loop calls ``poll`` with a time-out of 0 before any of that, and needs no reading of the clock for it.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.fileno = fileno = self._epoll.fileno()
        self._fine = fileno < FD_SETSIZE  # else whole milliseconds: late by up to one, never early
        self.size = 8  # reports taken at once; the owner keeps it above the number of descriptors
        self._by_descriptor = False  # what ended the last wait
        self.register = self._epoll.register
        self.modify = self._epoll.modify
        self.unregister = self._epoll.unregister
        self.poll = self._epoll.poll

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """(descriptor, mask) of what is ready; waits ``timeout`` seconds at most, None for ever, 0 not at all.

        Signals that arrive meanwhile have their Python handlers called and do not end the wait (PEP 475).
        """
        if timeout is None:
            return self.poll(-1, self.size)
        if timeout <= 0.0:
            return self.poll(0, self.size)
        timeout = min(timeout, LONGEST_WAIT)
        if not self._fine:
            return self.poll(timeout, self.size)
        if self._by_descriptor and timeout >= COARSE:
            began = monotonic()
            # Half a millisecond less, as Python rounds up.
            ready = self.poll(int(timeout * 1e3) / 1e3 - 0.0005, self.size)
            if ready:
                return ready
            timeout -= monotonic() - began
        self._by_descriptor = timeout > 0.0 and bool(select.select((self.fileno,), (), (), timeout)[0])
        return self.poll(0, self.size) if self._by_descriptor else []

    def rebuild(self, entries: Iterable[tuple[int, int]]) -> list[int]:
        """Start over with a new epoll under the old number, holding (descriptor, mask) each; those that are refused.

        dup2 puts the new one where the old one was and closes the old one, so that the number stays below FD_SETSIZE
        and whatever waits on it outside keeps its hold.
        """
        fresh = select.epoll()
        refused: list[int] = []
        try:
            for fd, mask in entries:
                try:
                    fresh.register(fd, mask)
                except OSError:
                    refused.append(fd)
            os.dup2(fresh.fileno(), self.fileno, inheritable=False)
        finally:
            fresh.close()
        return refused

    def close(self) -> None:
        self._epoll.close()
