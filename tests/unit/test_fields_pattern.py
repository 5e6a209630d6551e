"""Regular expressions of users: what they find, and that none can hang the agent."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from pydantic import ValidationError

from agent.fields_pattern import group_names, searcher
from agent.model import Fault, Sample
from agent.testing import FakeContext
from drivers.lines import Lines

pytest.importorskip("re2")


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        (r"T=(?P<t>[-0-9.]+)(?: H=(?P<h>\d+))?", "x T=-2.5 H=40", {"t": "-2.5", "h": "40"}),
        (r"T=(?P<t>[-0-9.]+)(?: H=(?P<h>\d+))?", "T=3", {"t": "3"}),
        (r"(?P<b>.)(?P<a>.)", "xy", {"b": "x", "a": "y"}),
        (r"(?P<unit>.)(\d)(?P<n>\d*)", "°C12", {"unit": "C", "n": "2"}),
        (r"(?P<sign>.)$", "21 °", {"sign": "°"}),
        (r"^(?P<empty>)", "x", {"empty": ""}),
        (r"(?P<x>a)", "b", None),
    ],
)
def test_what_it_finds(pattern: str, text: str, found: dict[str, str] | None) -> None:
    result = searcher(pattern)(text)
    assert result == found
    if found:
        assert list(result or ()) == list(found)  # in the order of the pattern


def test_groups_are_named_in_their_order() -> None:
    assert group_names(r"(?P<z>a)(b)(?P<a>c)|(?P<m>d)") == ("z", "a", "m")


@pytest.mark.parametrize("pattern", ["(?P<a>x)(?=y)", r"(?P<a>x)\1", "(?P<a>x", "(?P<a>x{5000})"])
def test_what_is_none_for_re2_is_refused_and_nothing_is_printed(
    pattern: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="not a regular expression that RE2 knows: "):
        group_names(pattern)
    assert capfd.readouterr().err == ""


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)
    with pytest.raises(ValidationError, match=r"needs the package google-re2 .* pip install google-re2"):
        Lines.Config(name="a", driver="lines", port="/dev/null", format="regex", pattern="(?P<a>x)")


HOSTILE = [r"(?P<x>(a+)+)b", r"(?P<x>(a|aa)+)$", r"(?P<x>a*)*b", r"(?P<x>.*.*.*.*.*=.*)b", r"(?P<x>(x+x+)+)y"]


@pytest.mark.parametrize("pattern", HOSTILE)
def test_no_pattern_hangs_on_any_line(pattern: str) -> None:
    """Python's re needs longer than the universe has for some of these; a hang here ends by pytest's own time-out."""
    ctx = FakeContext("device")
    ctx.start(Lines, port="/dev/null", format="regex", pattern=pattern, longest=65536)
    for letter in b"a", b"x", b"=", b"ab":
        ctx.port.feed(letter * 20000 + b"!\n")
    kinds: list[Any] = [item.kind if isinstance(item, Fault) else type(item) for item in ctx.emitted]
    assert len(kinds) == 4
    assert set(kinds) <= {"unmatched", "number", Sample}
