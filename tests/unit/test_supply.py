"""Licences of what comes with the agent that fit, and an audit that claims nothing that it has not asked."""

from __future__ import annotations

import importlib.util
import json
import platform
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def tool(name: str) -> ModuleType:
    """A script of tools/ as a module."""
    loader = SourceFileLoader(f"tools_{name}", str(ROOT / "tools" / name))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def licences() -> ModuleType:
    return tool("licences")


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64"), reason="some of the packages have no wheel for this machine"
)
def test_every_dependency_has_a_licence_that_fits_and_the_page_says_so(
    licences: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (licences.main(["--check"]), capsys.readouterr().err) == (0, "")


@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("AGPL-3.0-or-later", False),
        ("EPL-2.0 OR BSD-3-Clause", True),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", True),
        ("MIT AND GPL-2.0-only", False),
        ("(MIT OR GPL-2.0-only) AND (GPL-3.0-only OR ISC)", True),
        ("MIT AND (GPL-3.0-only OR LicenseRef-Proprietary)", False),
        ("GPL-2.0-only OR MIT AND GPL-3.0-only", False),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("", False),
    ],
)
def test_a_licence_fits_or_not(licences: ModuleType, expression: str, fits: bool) -> None:
    assert licences.fits(expression) is fits


def test_a_new_dependency_whose_licence_does_not_fit_is_named(
    licences: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    info = tmp_path / "newcomer-1.0.dist-info"
    info.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    needed = licences.needed
    monkeypatch.setattr(licences, "needed", lambda name, extras: needed(name, extras) | {"newcomer"})
    for said, wrong in (
        ("License-Expression: GPL-3.0-only", "newcomer (the agent): GPL-3.0-only does not fit"),
        ("License: ask us", "newcomer: its licence cannot be told"),
    ):
        (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: newcomer\nVersion: 1.0\n{said}\n")
        assert licences.main(["--check"]) == 1
        assert wrong in capsys.readouterr().err


def test_an_audit_counts_what_it_has_not_asked_about() -> None:
    weak = {"id": "CVE-1", "fix_versions": ["1.1"]}
    report = {
        "dependencies": [
            {"name": "a", "version": "1.0", "vulns": [weak, {"id": "CVE-2", "fix_versions": []}]},
            {"name": "b", "version": "1.0", "vulns": []},
            {"name": "c", "skip_reason": "Dependency not found on PyPI"},
        ]
    }
    assert tool("audit").judge(json.dumps(report)) == (
        2,
        {"c"},
        ["a 1.0: CVE-1, repaired in 1.1", "a 1.0: CVE-2, repaired in no version"],
    )


def test_an_audit_that_reaches_nobody_is_no_good_news(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audit = tool("audit")
    pip_audit = tmp_path / "pip-audit"
    for says, status in (
        ('echo "name or service not known" >&2; exit 1', 2),
        ("""echo '{"dependencies": [{"name": "a", "skip_reason": "not found"}]}'""", 2),
        ("""echo '{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}'""", 0),
        ("""echo '{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "C", "fix_versions": []}]}]}'""", 1),
    ):
        pip_audit.write_text(f"#!/bin/sh\n{says}\n")
        pip_audit.chmod(0o755)
        assert audit.main(str(pip_audit)) == status
        assert ("Nothing is known of what is in requirements.txt" in capsys.readouterr().out) == (status == 2)
