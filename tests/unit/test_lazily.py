"""Imports that load at the first use: each in an interpreter of its own, as what is loaded stays loaded."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest


def outcome(code: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=True
    )
    return run.stdout.strip()


HEAD = "import sys\nfrom agent.lazily import lazily\n"


@pytest.mark.parametrize(("name", "used"), [("wave", "open"), ("xml.dom", "Node"), ("urllib.request", "Request")])
def test_a_module_is_loaded_by_its_first_use_and_not_before(name: str, used: str) -> None:
    code = f"""
with lazily({name!r}):
    import {name}
print({name!r} in sys.modules, end=" ")
{name}.{used}
print({name!r} in sys.modules)
"""
    assert outcome(HEAD + code) == "False True"


def test_what_is_imported_elsewhere_is_the_module_itself() -> None:
    code = """
with lazily("wave"):
    import wave as later
import wave
print(wave is later, later.Error is wave.Error)
"""
    assert outcome(HEAD + code) == "False True"


def test_use_within_the_block_loads_it_once() -> None:
    code = """
with lazily("wave"):
    import wave as later
    first = later.Error
    import wave
print(first is wave.Error is sys.modules["wave"].Error)
"""
    assert outcome(HEAD + code) == "True"


def test_a_loaded_module_stays_what_it_is() -> None:
    code = """
import wave as before
with lazily("wave"):
    import wave
print(wave is before is sys.modules["wave"])
"""
    assert outcome(HEAD + code) == "True"


def test_a_function_is_loaded_when_it_is_called() -> None:
    code = """
with lazily("wave:open"):
    from wave import open
print("wave" in sys.modules, end=" ")
try:
    open("/nonexistent", "rb")
except FileNotFoundError:
    print("wave" in sys.modules)
"""
    assert outcome(HEAD + code) == "False True"


def test_a_module_that_is_not_there_says_so_at_its_use() -> None:
    code = """
with lazily("no_such_module"):
    import no_such_module
try:
    no_such_module.anything
except ModuleNotFoundError as error:
    print(error)
"""
    assert outcome(HEAD + code) == "No module named 'no_such_module'"
