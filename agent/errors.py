"""Every error of the agent, with who catches it and what to do. A fault of the wire is no error: see model.Fault."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass


class OutstationError(Exception):
    """The root of all errors of this package. Never raised itself."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a configuration: where it stands, what stands there and what would be right."""

    file: str
    line: int | None
    key: str
    value: str | None
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        what = f"{self.key} = {self.value}" if self.value is not None else self.key
        message = f"{self.message}; {self.remedy}" if self.remedy else self.message
        return ": ".join(part for part in (where, what, message) if part)  # what: "" for a file as a whole


class ConfigError(OutstationError, ValueError):
    """The configuration is wrong; ``problems`` holds all that was found. Caught by the command line: exit status 78."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class PluginError(OutstationError, ImportError):
    """A driver cannot be loaded. Caught by the registry, which lists it as broken."""


class DeviceLost(OutstationError, OSError):  # noqa: N818  (named by the contract of drivers)
    """The device is gone: unplugged, hung up, end of file. Raised by ports and drivers; the supervisor reopens."""


class _Remedied(OutstationError):  # noqa: N818  (a part of errors, not one of them)
    """An error with a word for programs and advice for people."""

    def __init__(self, reason: str, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.args[0]}; {self.remedy}" if self.remedy else str(self.args[0])


class PortError(_Remedied, DeviceLost):
    """A port cannot be opened. Caught by the supervisor, which shows reason and remedy and tries again.

    reason: one of "missing", "busy", "permission", "unsupported", "failed"; remedy: what a person can do about it.
    """


class ChildEnded(DeviceLost):
    """A child process has ended. Raised by its port; a driver makes a Fault of it, or its device is opened again.

    status: exit status, or the signal's number, negative; words: the last line of its standard error, or "".
    """

    def __init__(self, name: str, status: int, words: str = "") -> None:
        how = f"exit status {status}" if status >= 0 else f"killed by {_signal(-status)}"
        super().__init__(f"{name}: {how}: {words}" if words else f"{name}: {how}")
        self.status = status
        self.words = words


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


class WorkersBusy(OutstationError, RuntimeError):  # noqa: N818  (named by the contract of drivers)
    """The workers' queue is full. Given to a driver's ``on_error``; without one its device is opened again."""


class LinkError(_Remedied, ConnectionError):
    """The broker cannot be reached, or refuses us. Caught by the link, which logs one line, backs off and tries again.

    reason: one of "dns", "refused", "unreachable", "timeout", "tls", "certificate", "credentials", "not_authorized",
    "client_id", "protocol", "quota", "too_large", "taken_over", "lost"; remedy: what a person can do about it.
    """


class FleetError(_Remedied, ValueError):
    """A document of the fleet is not one that may be applied. Caught by ``agent.fleet``, which counts and reports it,
    and by the command line.

    reason: one of "malformed", "unsigned", "unknown_key", "bad_signature", "target", "older", "damaged", "unreadable".
    """


class OutboxError(OutstationError, OSError):
    """The outbox's file is not one that this agent can use. Caught by the writer, and told in log and status."""


class OutboxBusy(OutboxError):  # noqa: N818  (one agent a file: a state of affairs)
    """Another process has the outbox. Caught by the command line: exit status 75 (EX_TEMPFAIL).

    pid: as it stands in the lock file; "" if that cannot be read.
    """

    def __init__(self, path: object, pid: str) -> None:
        who = f"process {pid}" if pid else "another process"
        super().__init__(f"{path} is in use by {who}; stop that, or set outbox.path to another file")
        self.pid = pid
