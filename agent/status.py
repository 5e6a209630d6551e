"""The status report: what the agent says of itself every ``status.interval``, at ``outstation/<agent>/status``."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import orjson

from agent import __version__
from agent.clock import Clock, rfc3339
from agent.commands import Commands
from agent.events import EventManager, Stats
from agent.mqtt import Link, LinkStats
from agent.outbox import Outbox
from agent.publisher import Publisher
from agent.supervisor import Supervisor

if TYPE_CHECKING:
    from agent.parsing import ParsingHost

SLOW_NAMES = 16
"""Slow callbacks named in one report: it has to fit into a broker's smallest usual packet."""


def versions() -> dict[str, str]:
    """What runs here: the agent, the interpreter, the kernel and the machine."""
    return {
        "agent": __version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
    }


def process() -> dict[str, float | int]:
    """CPU and memory of the agent itself: proc_pid_statm(5), getrusage(2)."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    with open("/proc/self/statm", "rb") as statm:
        resident = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu_s": round(used.ru_utime + used.ru_stime, 3),
        "rss_bytes": resident,
        "rss_peak_bytes": used.ru_maxrss * 1024,
    }


def loop(stats: Stats) -> dict[str, Any]:
    """The event manager: how late it is, and who made it so."""
    return {
        "turns": stats.turns,
        "callbacks": stats.callbacks,
        "lag_s": round(stats.lag, 6),
        "lag_worst_s": round(stats.worst_lag, 6),
        "slow": {
            slow.name: {
                "count": slow.count,
                "worst_s": round(slow.worst, 4),
                "total_s": round(slow.total, 4),
                "where": f"{slow.file}:{slow.line}" if slow.file else slow.function,
            }
            for slow in stats.slow[:SLOW_NAMES]
        },
        "slow_count": sum(slow.count for slow in stats.slow),
        "errors": {event.name: event.errors for event in stats.events if event.errors},
    }


def work(stats: Stats, parsing: ParsingHost | None) -> dict[str, Any]:
    """The pool of workers, and the processes of parsers, if there are to be any."""
    pool = stats.work
    return {
        "processes": asdict(parsing.stats()) if parsing is not None else None,
        "threads": pool.workers,
        "abandoned": pool.abandoned,
        "queued": pool.queued,
        "running": pool.running,
        "finished": pool.finished,
        "failed": pool.failed,
        "timed_out": pool.timed_out,
        "rejected": pool.rejected,
        "starved": pool.starved,
        "longest_wait_s": round(pool.longest_wait, 4),
    }


def link(stats: LinkStats, now: float) -> dict[str, Any]:
    """The connection to the broker."""
    error = stats.last_error
    return {
        "state": stats.state,
        "url": stats.url,
        "for_s": round(now - stats.since, 3),
        "away_s": round(stats.backlog, 3),
        "connects": stats.connects,
        "reconnects": stats.reconnects,
        "failures": stats.failures,
        "last_error": None if error is None else {"reason": error.reason, "text": str(error)},
        "in_flight": stats.inflight,
    }


class StatusReport:
    """Puts the report together from those who know."""

    def __init__(
        self,
        agent: str,
        manager: EventManager,
        clock: Clock,
        link: Link,
        outbox: Outbox,
        publisher: Publisher,
        supervisor: Supervisor,
        commands: Commands,
    ) -> None:
        self.versions = versions()
        self._agent = agent
        self._manager = manager
        self._clock = clock
        self._link = link
        self._outbox = outbox
        self._publisher = publisher
        self._supervisor = supervisor
        self._commands = commands
        self._begun = manager.now()
        self.certificate: Callable[[], dict[str, Any] | None] = lambda: None
        """Until when the client's certificate is valid; None: it has none."""
        self.requests: Callable[[], dict[str, int]] | None = None

    def build(self) -> dict[str, Any]:
        """The report as it is published. Times ending in ``_s`` are seconds."""
        stats, now = self._manager.stats(), self._manager.now()
        clock, outbox, sent = self._clock, self._outbox, self._publisher.stats()
        devices = self._supervisor.report()
        return {
            "ts": rfc3339(clock.wall_ns(clock.mono_ns())),
            "agent": self._agent,
            "uptime_s": round(now - self._begun, 3),
            "versions": self.versions,
            "clock": {
                "trusted": clock.trusted(),
                "basis": clock.basis,
                "steps": clock.steps,
                "last_step_s": round(clock.last_step_ns / 1e9, 6),
            },
            "link": link(self._link.stats(), now),
            # In Telegraf's words: added, written (acknowledged), dropped, rejected.
            "readings": {
                "added": sum(device["readings"] for device in devices.values()),
                "sent": sent.written,
                "written": sent.acknowledged,
                "rejected": sent.refused + sent.oversized,
                "dropped": sum(outbox.dropped.values()),
            },
            "outbox": outbox.report(),
            "devices": devices,
            "commands": self._commands.report(),
            **({} if self.requests is None else {"requests": self.requests()}),
            "hotplug": {"degraded": self._supervisor.hotplug_degraded},
            "certificate": self.certificate(),
            "loop": loop(stats),
            "workers": work(stats, self._supervisor.parsing),
            "process": process(),
        }

    def encode(self) -> bytes:
        return orjson.dumps(self.build())

    def dump(self) -> str:
        """The same, set for people; for SIGUSR1."""
        stats = self._manager.stats()
        report = self.build()
        report["events"] = [
            {"name": e.name, "count": e.count, "worst_s": round(e.worst, 6), "total_s": round(e.total, 4)}
            for e in stats.events[:40]
        ]
        return orjson.dumps(report, option=orjson.OPT_INDENT_2).decode()
