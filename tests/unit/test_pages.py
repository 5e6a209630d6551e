"""The generated pages: not stale, complete, and their examples are configurations."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

from agent.cli import STATUSES, cli
from agent.config import SECTIONS, load, problems_text
from agent.config_options import options
from agent.driver import SerialConfig
from agent.errors import ConfigError
from agent.registry import BUILTIN, discover

ROOT = Path(__file__).resolve().parents[2]
cli.load()


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def test_no_page_is_stale(generate: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    status = generate.main(["--check"])
    assert (status, capsys.readouterr().err) == (0, "")


def test_stale_missing_and_surplus_pages_are_named_and_made_good(
    generate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    capsys.readouterr()
    drivers = tmp_path / "docs" / "drivers"
    (drivers / "gone.md").write_text("a driver that was removed")
    (drivers / "lines.md").unlink()
    (tmp_path / "docs" / "cli.md").write_text("old")
    assert generate.main(["--check"]) == 1
    stale = [line.split()[0] for line in capsys.readouterr().err.splitlines()]
    assert stale == ["docs/cli.md", "docs/drivers/lines.md", "docs/drivers/gone.md"]
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    assert not (drivers / "gone.md").exists()


def test_an_unknown_argument(generate: ModuleType) -> None:
    assert generate.main(["--chekc"]) == 2


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield " ".join((*path, name)), command
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)


@pytest.mark.parametrize(("name", "command"), [pytest.param(*item, id=item[0]) for item in commands(cli)])
def test_every_command_is_documented(name: str, command: click.Command) -> None:
    _, _, text = page("cli.md").partition(f"# outstation {name}\n")
    section = text.partition("\n##")[0]
    assert section
    for parameter in command.params:
        assert all(option in section for option in parameter.opts if option.startswith("--"))


def test_every_status_is_documented() -> None:
    text = page("cli.md")
    assert all(f"| {status} | {meaning} |" in text for status, meaning in STATUSES.items())


@pytest.mark.parametrize("section", sorted(SECTIONS))
def test_every_key_has_a_meaning_and_a_default_or_an_example(section: str, generate: ModuleType) -> None:
    text = page("configuration.md").split(f"\n## [{section}]\n")[1].split("\n## ")[0]
    for option in options(SECTIONS[section]):
        assert f"| `{option.key}` |" in text
        assert option.meaning.endswith(".")
        example = generate.EXAMPLES.get(f"{section}.{option.key}")
        assert option.default or example, f"{option.key}: an example is due in docs/generate.py"


def test_choices_that_a_validator_holds_are_shown() -> None:
    """pydantic has no Literal of 1.5: the model's json_schema_extra has the choices, for editors too."""
    (stopbits,) = (option for option in options(SerialConfig) if option.key == "stopbits")
    assert stopbits.type == "1 | 1.5 | 2"


def test_every_example_stands_for_a_key_without_default(generate: ModuleType) -> None:
    bare = {
        f"{name}.{option.key}" for name, model in SECTIONS.items() for option in options(model) if not option.default
    }
    assert set(generate.EXAMPLES) == bare


def loads(text: str, tmp_path: Path) -> None:
    path = tmp_path / "outstation.toml"
    path.write_text(text)
    try:
        load(path, discover([]))
    except ConfigError as error:
        pytest.fail("\n".join([text, *problems_text(error)]))


CONFIGURATIONS = [
    (name, block)
    for name in ["configuration.md", "rules.md", *(f"drivers/{driver}.md" for driver in sorted(BUILTIN))]
    for block in re.findall(r"```toml\n(.*?)```", page(name), re.DOTALL)
]


@pytest.mark.parametrize("block", [block for _, block in CONFIGURATIONS])
def test_every_sample_is_a_configuration(block: str, tmp_path: Path) -> None:
    loads(block, tmp_path)


EXAMPLES = re.findall(r"^# (\w+) = ", page("configuration.md"), re.MULTILINE)
NEEDS = {
    "password_file": ["username"],
    "password_env": ["username"],
    "key_file": ["cert_file"],
    "token_file": ["listen"],
}


@pytest.mark.parametrize("key", EXAMPLES)
def test_every_example_of_a_key_is_right(key: str, tmp_path: Path) -> None:
    """Uncommented, with what it cannot be without, it is a configuration."""
    text = "\n".join(block for name, block in CONFIGURATIONS[1:] if name == "configuration.md")
    for wanted in [key, *NEEDS.get(key, [])]:
        text = text.replace(f"# {wanted} = ", f"{wanted} = ")
    loads(text, tmp_path)


def test_defaults_in_the_tables_are_the_defaults(tmp_path: Path) -> None:
    """The samples say every default; a configuration of them is the one of an empty file."""
    path = tmp_path / "outstation.toml"
    path.write_text("\n".join(block for name, block in CONFIGURATIONS[1:] if name == "configuration.md"))
    said = load(path, discover([]))
    path.write_text("")
    silent = load(path, discover([]))
    assert {name: getattr(said, name) for name in SECTIONS} == {name: getattr(silent, name) for name in SECTIONS}
    assert len(CONFIGURATIONS) >= 1 + len(SECTIONS) + len(BUILTIN)
