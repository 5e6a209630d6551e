"""For all tests: the fixtures of our own pytest plugin, and what becomes of a skipped test.

A skip is a check that nobody made. On a developer's machine it is listed with its reason at the end of the run; in CI
(``CI=true``) it is a failure.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

import agent.testing.plugin

CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")

_skips: list[tuple[str, str]] = []


def pytest_configure(config: pytest.Config) -> None:
    # Installed, the plugin is there by its entry point; in a bare source tree it is not. `pytest_plugins` would
    # register it under a second name, which pytest refuses.
    if not config.pluginmanager.is_registered(agent.testing.plugin):
        config.pluginmanager.register(agent.testing.plugin, "outstation")


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    where = report.longrepr
    text = where[2] if isinstance(where, tuple) else str(where)
    return text.removeprefix("Skipped: ")


def _judge(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = _reason(report)
        if CI:
            report.outcome = "failed"
            report.longrepr = f"{report.nodeid} was skipped, and in CI every check has to run: {reason}"
        else:
            _skips.append((report.nodeid, reason))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _judge(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A whole module may be skipped: ``pytest.skip(..., allow_module_level=True)``, ``importorskip``."""
    report = yield
    _judge(report)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _skips:
        terminalreporter.section("not checked on this machine")
        for nodeid, reason in _skips:
            terminalreporter.write_line(f"{nodeid}: {reason}")
