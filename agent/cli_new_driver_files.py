"""What `outstation new-driver` writes. The templates are files that work: a test runs them as they are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Template

from agent import __version__


class NoCheckoutError(ValueError):
    """The folder is no checkout of Outstation. Caught by the command."""


DRIVER = Template('''\
"""ACME $title: temperature.

Device: TODO what it measures, its limits, its supply and levels.

Wire format: 9600 baud, 8N1. Frames of five bytes$when: A5 5A, the temperature in
tenths of °C (two bytes, high byte first, signed), and the low byte of the sum of these four.

Source: TODO datasheet and section, or the standard.

Sample::

    [[device]]
    name = "$name"
    driver = "$name"
    port = "/dev/serial0"
$interval"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from agent.driver import $names
from agent.framing_check import check_named
from agent.framing_frames import FrameFramer, FrameReader, Layout

LAYOUT: Final = Layout(5, sync=b"\\xa5\\x5a", check=check_named("sum8"))
$request

class ${cls}Config($config):
    """What a device with this sensor may say, beside name, driver and port settings."""


def read(frame: bytes) -> Iterable[Sample | Fault]:
    """What a frame says, whose sync and sum are right."""
    return (Sample({"temperature": int.from_bytes(frame[2:4], "big", signed=True) / 10}),)


class ${cls}Parser(FrameReader, Parser):
    """Frames to samples. Knows no port and no clock."""

    def __init__(self) -> None:
        super().__init__(FrameFramer(LAYOUT), read)


class $cls($base):
    """ACME $title: temperature."""

    Config = ${cls}Config
    channels = (Channel("temperature", "°C", -40, 85, "temperature", "measurement"),)

    def parser(self) -> Parser:
        return ${cls}Parser()
$method''')

TEST = Template('''\
"""The driver $name, without hardware."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
$imports

CASES = sorted($cases)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_golden_case(case: Path) -> None:
    check($cls, case)


def test_there_are_golden_cases() -> None:
    assert CASES


def test_noise_is_a_fault_and_the_next_frame_is_read() -> None:
    parser = ${cls}Parser()
    items = list(parser.feed(bytes.fromhex("a5 5a 00 d7 d7  a5 5a 00 d7 d6")))  # the first sum does not fit
    assert [item.kind for item in items if isinstance(item, Fault)] == ["checksum"]
    assert items[-1] == Sample({"temperature": 21.5})


def test_no_bytes_raise() -> None:
    rng = random.Random(1)
    parser = ${cls}Parser()
    for _ in range(200):
        list(parser.feed(rng.randbytes(rng.randrange(50))))
    list(parser.end())
$polled''')

PROJECT = Template("""\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "outstation-$dashed"
version = "0.1.0"
description = "Driver $name for Outstation."
requires-python = ">=3.11"
dependencies = ["outstation>=$version"]

[project.optional-dependencies]
test = ["pytest"]

[project.entry-points."outstation.drivers"]
$name = "outstation_$name:$cls"

[tool.hatch.build.targets.wheel]
include = ["outstation_$name.py"]

[tool.pytest.ini_options]
pythonpath = ["."]
testpaths = ["tests"]
""")

DEVICE = Template("""\
# TODO where the bytes come from: a capture of which device, or which section of which standard.
name = "$name"
driver = "$name"
port = "/dev/null"
""")

INPUT = """\
a5 5a 00 d7 d6      # 21.5 °C
00 ff               # noise
a5 5a ff ce cc      # -5.0 °C
a5 5a 01            # cut
"""

EXPECTED = """\
{"fields": {"temperature": 21.5}}
{"fault": "syntax", "detail": "bytes that are no frame", "raw": "\\\\x00\\\\xff"}
{"fields": {"temperature": -5.0}}
{"fault": "cut", "detail": "the stream ended within a frame", "raw": "\\\\xa5Z\\\\x01"}
"""

POLLED = """

def test_it_is_asked_and_a_silent_device_is_a_fault() -> None:
    ctx = FakeContext("device")
    ctx.start($cls, port="/dev/null", interval=10, answer_timeout=1)
    ctx.run()
    assert ctx.port.written == b"\\xa5\\x01"
    ctx.advance(1)
    assert [fault.kind for fault in ctx.faults] == ["timeout"]
    ctx.port.answer(b"\\xa5\\x01", bytes.fromhex("a5 5a 00 d7 d6"))
    ctx.advance(10)
    assert [sample.fields for sample in ctx.samples] == [{"temperature": 21.5}]
"""

REQUEST = """REQUEST: Final = b"\\xa5\\x01"  # TODO what makes it answer
"""
METHOD = """
    def request(self) -> bytes:
        return REQUEST
"""


def package(folder: Path, name: str, poll: bool) -> list[Path]:
    """A distribution of its own below folder; the files written. Raises FileExistsError."""
    root = folder / f"outstation-{name.replace('_', '-')}"
    root.mkdir()
    words = _words(name, poll)
    imports = f"{_agents(poll)}\n\nfrom outstation_{name} import {words['cls']}, {words['cls']}Parser"
    cases = '(Path(__file__).parent / "cases").glob("*/device.toml")'
    case = "tests/cases/example"
    return _write(
        root,
        {
            "pyproject.toml": PROJECT.substitute(words),
            f"outstation_{name}.py": DRIVER.substitute(words),
            f"tests/test_{name}.py": _test(words, imports, cases),
            **_case(case, words),
        },
    )


def builtin(root: Path, name: str, poll: bool) -> list[Path]:
    """A driver of the checkout whose root it is. Raises NoCheckoutError, FileExistsError."""
    project, registry = root / "pyproject.toml", root / "agent" / "registry.py"
    if not (root / "drivers").is_dir() or not registry.is_file() or not project.is_file():
        raise NoCheckoutError(f"{root} is no checkout of Outstation: no drivers/, agent/registry.py or pyproject.toml")
    words = _words(name, poll)
    target = f"drivers.{name}:{words['cls']}"
    changed = {
        project: _inserted(project, '[project.entry-points."outstation.drivers"]\n', f'{name} = "{target}"\n'),
        registry: _inserted(registry, "BUILTIN = {\n", f'    "{name}": "{target}",\n'),
    }
    imports = f"\n{_agents(poll)}\nfrom drivers.{name} import {words['cls']}, {words['cls']}Parser"
    cases = f'(Path(__file__).parents[1] / "cases" / "{name}").glob("*/device.toml")'
    written = _write(
        root,
        {
            f"drivers/{name}.py": DRIVER.substitute(words),
            f"tests/unit/test_{name}.py": _test(words, imports, cases),
            **_case(f"tests/cases/{name}/example", words),
        },
    )
    for path, text in changed.items():
        path.write_text(text, encoding="utf-8")
    return [*written, *changed]


def next_steps(into: Path, name: str, is_builtin: bool) -> Iterator[str]:
    """What to do now, a line each."""
    if is_builtin:
        yield f"Now:  python -m pytest tests/unit/test_{name}.py tests/cases -k {name}"
        yield "then: make docs"
        return
    yield f"Now:  cd {into / ('outstation-' + name.replace('_', '-'))} && python -m pytest"
    yield f"then: pip install -e . && outstation drivers {name}"


def _words(name: str, poll: bool) -> dict[str, str]:
    cls = "".join(part.capitalize() for part in name.split("_"))
    base, config = ("PollDriver", "PollConfig") if poll else ("StreamDriver", "SerialConfig")
    return {
        "name": name,
        "title": name.upper(),
        "dashed": name.replace("_", "-"),
        "version": __version__,
        "cls": cls,
        "base": base,
        "config": config,
        "names": ", ".join(sorted(["Channel", "Fault", "Parser", "Sample", base, config])),
        "when": ", one at each request A5 01" if poll else "",
        "interval": '    interval = "10s"\n' if poll else "",
        "request": REQUEST if poll else "",
        "method": METHOD if poll else "",
        "polled": Template(POLLED).substitute(cls=cls) if poll else "",
    }


def _agents(poll: bool) -> str:
    fake = "from agent.testing import FakeContext\n" if poll else ""
    return f"from agent.driver import Fault, Sample\n{fake}from agent.testing.cases import check"


def _test(words: Mapping[str, str], imports: str, cases: str) -> str:
    return TEST.substitute(words, imports=imports, cases=f"path.parent for path in {cases}")


def _case(folder: str, words: Mapping[str, str]) -> dict[str, str]:
    return {
        f"{folder}/device.toml": DEVICE.substitute(words),
        f"{folder}/input.hex": INPUT,
        f"{folder}/expected.jsonl": EXPECTED,
    }


def _inserted(file: Path, after: str, line: str) -> str:
    text = file.read_text(encoding="utf-8")
    head, found, tail = text.partition(after)
    if not found:
        raise NoCheckoutError(f"{file} has no line {after.strip()!r}")
    return head + found + line + tail


def _write(root: Path, files: Mapping[str, str]) -> list[Path]:
    """All of them or, where one is there already, none. Raises FileExistsError."""
    paths = {root / name: text for name, text in files.items()}
    if taken := [path for path in paths if path.exists()]:
        raise FileExistsError(17, "File exists", str(taken[0]))
    for path, text in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(paths)
