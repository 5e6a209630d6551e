"""The registry: drivers by entry point, imported by name, and broken ones that harm nobody."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.driver import DeviceConfig, Driver, Port
from agent.registry import BUILTIN, GROUP, Offer, Registry, discover, known_channels, lacking, scan

ROOT = Path(__file__).resolve().parents[2]

GOOD = '''
"""A fine driver.

Sample::

    [[device]]
    name = "x"
    driver = "good"

    [device.more]
    y = 1

And no sample::

    $ ls
"""
from agent.driver import Driver

class Good(Driver):
    """Reads nothing.

    More."""

    def start(self, port):
        pass
'''


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory on sys.path, as pip would fill it; what was imported from it is forgotten."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def install(
    site: Path, name: str, entry_points: str, version: str = "1.0", kind: str = "dist-info", **files: str
) -> None:
    metadata = site / f"{name}-{version}.{kind}"
    metadata.mkdir()
    (metadata / "entry_points.txt").write_text(entry_points)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    for module, text in files.items():
        (site / f"{module}.py").write_text(text)


def test_the_built_in_ones_are_those_of_pyproject() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][GROUP]
    assert declared == BUILTIN


def test_built_in_ones_are_found_in_a_tree_that_nobody_installed() -> None:
    # -S: none of site's own directories; the libraries' is added as a plain path, for pydantic.
    libraries = [path for path in sys.path if "site-packages" in path]
    code = f"import sys; sys.path += {libraries!r}; from agent.registry import discover; print(*discover([]).names)"
    out = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.split() == sorted(BUILTIN)


def test_a_third_party_driver(site: Path) -> None:
    points = f"[console_scripts]\nx = y:z\n[{GROUP}]\n# note\ngood = acme_good:Good [extra]\n"
    install(site, "acme_sensors", points, acme_good=GOOD)
    entry = discover([str(site)]).load("good")
    assert entry.cls is not None
    assert entry.error is None
    assert (entry.summary, entry.distribution) == ("Reads nothing.", "acme-sensors 1.0")
    assert entry.sample == '[[device]]\nname = "x"\ndriver = "good"\n\n[device.more]\ny = 1'


def test_it_sees_what_importlib_metadata_sees(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, "one", f"[{GROUP}]\na=m:A\n  b  =  m : B.c  \n\n[other]\nc = m:C\n")
    install(site, "Two.Parts", f"[{GROUP}]\nd = m:D [x, y]\n", kind="egg-info")
    install(site, "none", "")
    elsewhere = site / "elsewhere"
    elsewhere.mkdir()
    install(elsewhere, "two_parts", f"[{GROUP}]\nshadowed = m:E\n", version="2.0")
    monkeypatch.setattr(sys, "path", [str(site), str(elsewhere), str(site / "missing"), *sys.path])
    theirs = {(point.name, f"{point.module}:{point.attr}") for point in importlib.metadata.entry_points(group=GROUP)}
    ours = {(offer.name, offer.target) for offer in scan()}
    assert {("a", "m:A"), ("b", "m:B.c"), ("d", "m:D")} <= ours
    assert ours == theirs


def test_nothing_is_imported_before_it_is_asked_for(site: Path) -> None:
    points = f"[{GROUP}]\ngood = acme_good:Good\nbad = acme_bad:Bad\n"
    install(site, "acme", points, acme_good=GOOD, acme_bad="1/0")
    registry = discover([str(site)])
    assert {"good", "bad"} <= set(registry.names)
    assert "acme_good" not in sys.modules
    assert registry.load("good").cls
    assert registry.load("good") is registry.load("good")
    assert "acme_bad" not in sys.modules


BROKEN = {
    "raises": ("1/0", "ZeroDivisionError: division by zero"),
    "lines": ("raise ValueError('first\\nsecond')", "ValueError: first"),
    "silent": ("raise KeyError", "KeyError"),
    "exits": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "syntax": ("def", "SyntaxError: invalid syntax (broken_syntax.py, line 1)"),
    "needs": ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    "empty": ("", "AttributeError: module 'broken_empty' has no attribute 'X'"),
    "function": ("def X(): pass", "broken_function:X is not a subclass of agent.driver.Driver"),
    "abstract": ("from agent.driver import StreamDriver as X", "broken_abstract:X lacks parser"),
    "config": (
        "from agent.driver import *\nclass X(Driver):\n  Config = dict\n  def start(self, port): pass",
        "broken_config:X: its Config is not a subclass of agent.driver.DeviceConfig",
    ),
    "lax": (
        "from agent.driver import *\nclass C(DeviceConfig, extra='ignore'): pass\n"
        "class X(Driver):\n  Config = C\n  def start(self, port): pass",
        'broken_lax:X: its Config must keep extra="forbid", or misspelt keys pass in silence',
    ),
}


def test_broken_ones_are_listed_with_one_line_and_harm_nobody(site: Path) -> None:
    points = "".join(f"{name} = broken_{name}:X\n" for name in BROKEN)
    files = {f"broken_{name}": text for name, (text, _) in BROKEN.items()}
    install(site, "broken", f"[{GROUP}]\n{points}gone = broken_gone:X\nnonsense\n= \n", **files)
    install(site, "fine", f"[{GROUP}]\ngood = fine_good:Good\n", fine_good=GOOD)
    install(site, "unreadable", "")
    (site / "unreadable-1.0.dist-info" / "entry_points.txt").write_bytes(b"\xff[outstation.drivers]\n\xfe=\n")
    names = {**{name: error for name, (_, error) in BROKEN.items()}, "good": None}
    registry = Registry(scan([str(site)]))
    entries = {entry.name: entry for entry in registry.entries()}
    assert {name: entries[name].error for name in names} == names
    assert entries["good"].cls is not None
    assert entries["nonsense"].error
    assert entries["gone"].error == "ModuleNotFoundError: No module named 'broken_gone'"


def test_two_distributions_with_one_name(site: Path) -> None:
    install(site, "acme", f"[{GROUP}]\nlines = acme:Lines\ngood = m:A\n", acme=GOOD)
    install(site, "bcme", f"[{GROUP}]\ngood = n:B\n", version="2.1")
    registry = discover([str(site)])
    assert registry.load("good").cls is None
    assert registry.load("good").error == "offered by acme 1.0 (m:A) and bcme 2.1 (n:B); uninstall all but one"
    assert registry.load("lines").error == (
        "offered by outstation (drivers.lines:Lines) and acme 1.0 (acme:Lines); uninstall all but one"
    )


def test_our_own_metadata_may_be_older_than_this_tree(site: Path) -> None:
    install(site, "outstation", f"[{GROUP}]\nlines = old.place:Lines\n", version="0.0.1")
    entry = discover([str(site)]).load("lines")
    assert entry.error is None
    assert entry.target == BUILTIN["lines"]


def test_an_unknown_name() -> None:
    with pytest.raises(KeyError):
        Registry([Offer("a", "m:A", "d")]).load("b")


@pytest.mark.parametrize("name", sorted(BUILTIN))
def test_the_sample_of_each_driver_is_a_configuration(name: str, tmp_path: Path) -> None:
    from agent.config import load

    registry = discover([])
    path = tmp_path / "outstation.toml"
    path.write_text(registry.load(name).sample)
    devices = load(path, registry).devices
    assert [device.config.driver for device in devices] == [name] * len(devices)
    assert devices
    assert all(channel.name for device in devices for channel in known_channels(*device))


def test_a_driver_that_fails_to_say_what_it_lacks_ends_nothing() -> None:
    class Bad(Driver):
        @classmethod
        def lacks(cls, config: DeviceConfig) -> str | None:  # noqa: ARG003
            raise ZeroDivisionError("oops")

        def start(self, port: Port | None) -> None: ...

    said = lacking(Bad, DeviceConfig(name="d", driver="bad"))
    assert said is not None
    assert said.endswith("Bad failed: ZeroDivisionError: oops")
