"""Regular expressions of the configuration, found in lines from the wire. Pure; needs google-re2 (the extra ``re2``).

RE2 takes time in proportion to the line, whatever the pattern, for it has no back-references and no look-around.
Python's own ``re`` goes back and tries again: ``(a+)+b`` on forty times "a" takes it hours, with the interpreter's lock
held, so that not even another thread could stop it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MISSING = "a regular expression needs the package google-re2 (the extra re2); pip install google-re2"


def group_names(pattern: str) -> tuple[str, ...]:
    """The names of its groups in their order. Raises ValueError for what is no regular expression, with why."""
    found = _compiled(pattern).groupindex
    return tuple(sorted(found, key=found.__getitem__))


def searcher(pattern: str) -> Callable[[str], dict[str, str] | None]:
    """What finds the pattern in a text: its named groups, but for those that took no part; None if it is not there.

    Raises ValueError.
    """
    compiled = _compiled(pattern)
    search = compiled.search
    numbers = sorted(compiled.groupindex.items(), key=lambda item: item[1])

    def groups(text: str) -> dict[str, str] | None:
        # Bytes, and spans of them: the binding's own ways to text and to groups take twice as long as the search.
        line = text.encode("utf-8", "surrogatepass")
        match = search(line)
        if match is None:
            return None
        found = {}
        for name, number in numbers:
            begin, end = match.span(number)
            if begin >= 0:
                found[name] = line[begin:end].decode("utf-8", "surrogatepass")
        return found

    return groups


def _compiled(pattern: str) -> Any:
    try:
        import re2  # type: ignore[import-untyped]  # 2 MB that only who has a pattern pays for
    except ImportError as error:
        if error.name not in ("re2", "re2._re2", "_re2"):
            raise
        raise ValueError(MISSING) from None
    options = re2.Options()
    options.log_errors = False  # it would write to standard error by itself
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else error
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(f"not a regular expression that RE2 knows: {text}") from None
