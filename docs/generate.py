"""Writes the pages that follow from the code: docs/configuration.md, docs/cli.md and docs/drivers/<name>.md.

python docs/generate.py            write them
python docs/generate.py --check    change nothing; exit 1 and name those that are stale
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # this tree's agent, not one that is installed

import click  # noqa: E402
from pydantic import BaseModel  # noqa: E402

from agent.cli import STATUSES, cli  # noqa: E402
from agent.cli_text import channel_text  # noqa: E402
from agent.config import RESERVED, SECTIONS  # noqa: E402
from agent.config_files import DEFAULT_FILE, DROP_INS  # noqa: E402
from agent.config_options import Option, driver_options, options  # noqa: E402
from agent.driver import DeviceConfig  # noqa: E402
from agent.registry import BUILTIN, DISTRIBUTION, DriverEntry, Offer, Registry  # noqa: E402
from agent.rules_settings import RuleSettings  # noqa: E402

EXAMPLES = {
    "agent.id": '"greenhouse-1"',
    "mqtt.topic": '"site/{agent}/{device}"',
    "mqtt.client_id": '"greenhouse-1"',
    "mqtt.username": '"greenhouse-1"',
    "mqtt.password_file": '"/etc/outstation/mqtt-password"',
    "mqtt.password_env": '"MQTT_PASSWORD"',
    "mqtt.ca_file": '"/etc/outstation/ca.pem"',
    "mqtt.cert_file": '"/etc/outstation/client.pem"',
    "mqtt.key_file": '"/etc/outstation/client.key"',
    "outbox.path": '"/var/lib/outstation/outbox.db"',
    "outbox.replay_rate": "5000",
    "page.listen": '"127.0.0.1:8080"',
    "page.token_file": '"/etc/outstation/page-token"',
}
"""An example for each key whose default shows nothing (a test holds that, and loads them)."""

NOTES = {
    "outbox": " What each `durability` promises, and where it ends: [durability.md](durability.md).",
}


def pages() -> dict[str, str]:
    """Text by path below the repository's root."""
    registry = Registry(Offer(name, target, DISTRIBUTION) for name, target in BUILTIN.items())
    entries = registry.entries()
    for entry in entries:
        if entry.cls is None:
            sys.exit(f"driver {entry.name}: {entry.error}")
    found = {"docs/configuration.md": configuration(entries), "docs/cli.md": command_line()}
    found.update({f"docs/drivers/{entry.name}.md": driver(entry) for entry in entries})
    found["docs/drivers/README.md"] = index(entries)
    note = "<!-- Written by docs/generate.py (`make docs`): edit the code, not this page. -->\n\n"
    return {path: note + text for path, text in found.items()}


# ---- configuration


def configuration(entries: list[DriverEntry]) -> str:
    drivers = "\n".join(f"- [{entry.name}](drivers/{entry.name}.md): {entry.summary}" for entry in entries)
    sections = "\n".join(section(name, model) for name, model in SECTIONS.items())
    return f"""# Configuration

One TOML file: what `-c FILE` names, else what the environment variable `OUTSTATION_CONFIG` names, else
`{DEFAULT_FILE}`. A small one:

```toml
[agent]
id = "greenhouse-1"

[mqtt]
urls = ["mqtts://broker.example"]

[[device]]
name = "weather"
driver = "lines"
port = "/dev/serial/by-id/usb-Arduino__www.arduino.cc__0043_75834353930351E0C1B1-if00"
format = "json"

[[device]]
name = "host"
driver = "host"
```

`outstation check` validates it and shows what would be read and published where. `outstation schema` gives editors its
JSON Schema.

## Drop-ins

Files `{DROP_INS}/*.toml` beside the main file belong to it, in the order of their names: a base file for all boards,
and beside it the few lines that make a board what it is. Tables merge, `[[device]]` lists are joined, and any other key
takes the value of the later file; `outstation check` names each key that does. A link to `/dev/null` switches a file
off. Files whose name begins with a dot are not read.

## Values

- A *duration* is a number of seconds, or text with a unit: `"250ms"`, `"30s"`, `"5m"`, `"1h"`, `"30d"`.
- A *size* is a number of bytes, or text with a unit: `"16kB"`, `"256MB"`, `"1GB"` (powers of 1000), `"16KiB"`,
  `"64MiB"`, `"1GiB"` (powers of 1024).
- No value is bent into another type: `"9600"` is text and no number, `1` is a number and not true.
- Unknown keys are errors. So are two devices with one name, or on one port (drivers that share a bus excepted).
- Names of devices and the agent's id are of `A-Z a-z 0-9 _ -`; no device is called
  {words([f"`{name}`" for name in RESERVED])}.
- Secrets do not stand in these files: they name the place of the password. What stands under a key that speaks of
  a password, a secret or a token is never printed, nor is what stands before the `@` of a URL.

All that is wrong is shown at once, and the exit status is 78:

```text
/etc/outstation/outstation.toml:7: mqtt.qos = 3
    must be 0, 1 or 2
/etc/outstation/outstation.toml:12: device[weather].baudrate = "9600"
    a whole number is due, not text; write it without quotes: baudrate = 9600
/etc/outstation/{DROP_INS}/20-lab.toml:3: device[scale].prot
    unknown key; did you mean "port"?
```

A device stands in brackets by its name, or by its number from 0 where that is missing or not its own.

{sections}
## [[device]]

A device of its own in each `[[device]]`. Its driver decides what else may stand there:

{drivers}

{rows(driver_options(DeviceConfig))}
## [device.rules]

The same for every driver, with examples and what exactly they mean: [rules.md](rules.md).

{table(RuleSettings)}"""


def section(name: str, model: type[BaseModel]) -> str:
    sample = [f"[{name}]"]
    for option in options(model):
        example = EXAMPLES.get(f"{name}.{option.key}")
        sample.append(f"{option.key} = {option.default}" if option.default else f"# {option.key} = {example}")
    lines = "\n".join(sample)
    return f"""## [{name}]

{(model.__doc__ or "").strip()}{NOTES.get(name, "")}

{table(model)}
With every default, and examples of what has none:

```toml
{lines}
```
"""


def table(model: type[BaseModel]) -> str:
    return rows(options(model))


def rows(found: Iterable[Option]) -> str:
    head = ["| key | type | default | unit | meaning |", "|---|---|---|---|---|"]
    return "\n".join([*head, *map(row, found)]) + "\n"


def row(option: Option) -> str:
    kind = ", ".join(filter(None, (option.type.replace(" | ", " or "), option.limits)))
    default = option.default if option.required else f"`{option.default}`" if option.default else "-"
    cells = (f"`{option.key}`", kind, default, option.unit, markdown(option.meaning))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def words(items: list[str]) -> str:
    return f"{', '.join(items[:-1])} or {items[-1]}"


# ---- drivers


def driver(entry: DriverEntry) -> str:
    assert entry.cls is not None
    summary, _, rest = entry.docstring.partition("\n")
    text = f"# Driver `{entry.name}`\n\n{markdown(summary.strip())}\n\n{prose(rest.strip())}\n"
    if isinstance(entry.cls.channels, tuple) and entry.cls.channels:
        text += "\n## Channels\n\n" + "\n".join(f"- {channel_text(channel)}" for channel in entry.cls.channels) + "\n"
    return text + f"\n## Options\n\n{rows(driver_options(entry.cls.Config))}"


def index(entries: list[DriverEntry]) -> str:
    """All drivers, with the length of their files: what one has to read to know one."""
    found = ["# Drivers", "", "| driver | reads | lines of its file |", "|---|---|---:|"]
    for entry in entries:
        assert entry.cls is not None
        length = len(Path(inspect.getfile(entry.cls)).read_text(encoding="utf-8").splitlines())
        found.append(f"| [`{entry.name}`]({entry.name}.md) | {markdown(entry.summary)} | {length} |")
    found += [
        "",
        "What needs a library says so on its page, and `outstation check` where it is missing. What none of them "
        "reads: [write a driver](../drivers.md), or give its frames to `frames` and its lines to `lines` by "
        "configuration.",
    ]
    return "\n".join(found) + "\n"


def prose(docstring: str) -> str:
    """A docstring as Markdown: its indented blocks become code, of TOML where they begin with a table."""
    parts = []
    for indented, block in blocks(docstring):
        if indented:
            language = "toml" if re.match(r"\s*(#.*\n\s*)*\[", block) else "text"
            parts.append(f"```{language}\n{block}\n```")
        else:
            parts.append(markdown(re.sub(r"::$", ":", block, flags=re.MULTILINE)))
    return "\n\n".join(parts)


def blocks(docstring: str) -> Iterator[tuple[bool, str]]:
    """Paragraphs, and runs of blocks indented by four or more, dedented."""
    code: list[str] = []
    for paragraph in re.split(r"\n\s*\n", docstring):
        if paragraph.startswith("    "):
            code.append(paragraph)
            continue
        if code:
            yield True, textwrap.dedent("\n\n".join(code))
            code = []
        yield False, paragraph
    if code:
        yield True, textwrap.dedent("\n\n".join(code))


def markdown(text: str) -> str:
    """``x`` as `x`, and what would be read as HTML escaped."""
    text = re.sub(r"``(.+?)``", r"`\1`", text)
    return re.sub(r"(`[^`]*`)|<", lambda match: match[1] or "&lt;", text)


# ---- the command line


def command_line() -> str:
    statuses = "\n".join(f"| {status} | {meaning} |" for status, meaning in STATUSES.items())
    cli.load()
    commands = "\n".join(help_text(*path) for path in sorted(paths(cli)))
    return f"""# The command `outstation`

`python -m agent` is the same.

{help_text()}
{commands}
## Exit status

| status | meaning |
|---|---|
{statuses}

A second SIGTERM or SIGINT ends the agent at once, with status 128 + the signal's number.

## Completion

`outstation completion` prints the script of a shell. Commands, options, files, drivers
and serial ports are completed.

```sh
outstation completion bash > /etc/bash_completion.d/outstation
outstation completion zsh > /usr/local/share/zsh/site-functions/_outstation
outstation completion fish > /etc/fish/vendor_completions.d/outstation.fish
```
"""


def paths(group: click.Group) -> Iterator[tuple[str, ...]]:
    """The names of all commands: ``("outbox",)``, ``("outbox", "stats")``."""
    for name, command in group.commands.items():
        yield (name,)
        if isinstance(command, click.Group):
            yield from ((name, *path) for path in paths(command))


def help_text(*path: str) -> str:
    """The help of a command, or of all of it, as a terminal of 100 columns shows it."""
    settings: dict[str, Any] = {**cli.context_settings, "terminal_width": 100}
    context = click.Context(cli, info_name="outstation", **settings)
    for name in path:
        assert isinstance(context.command, click.Group)
        context = click.Context(context.command.commands[name], info_name=name, parent=context)
    heading = f"##{'#' * (len(path) - 1)} outstation {' '.join(path)}\n\n" if path else ""
    return f"{heading}```text\n{context.get_help()}\n```\n"


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    wanted = pages()
    written = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs" / "drivers").glob("*.md")}
    stale = [path for path, text in wanted.items() if not same(ROOT / path, text)] + sorted(written - wanted.keys())
    if arguments:
        for path in stale:
            print(f"{path} is stale: run `make docs` and commit it", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        if path in wanted:
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path).write_text(wanted[path], encoding="utf-8")
        else:
            (ROOT / path).unlink()
        print(path)
    return 0


def same(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
