"""Writes outstation(1), the manual page, from the command line's own words (man(7))."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime

import click

from agent import __version__
from agent.cli import STATUSES, cli


def man() -> Iterator[str]:
    """outstation(1), as SOURCE_DATE_EPOCH (seconds) dates it: what `--help` says of each command."""
    cli.load()
    when = datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), UTC)
    yield f'.TH OUTSTATION 1 "{when:%Y-%m-%d}" "outstation {__version__}" "User Commands"'
    yield ".SH NAME"
    yield r"outstation \- read a board\(aqs devices and report them to an MQTT broker"
    yield ".SH SYNOPSIS"
    yield r"\fBoutstation\fR \fICOMMAND\fR [\fIOPTIONS\fR]"
    yield ".SH DESCRIPTION"
    yield from prose(cli.help or "")
    yield ".SH COMMANDS"
    for name in sorted(cli.commands):
        yield from command(cli.commands[name], f"outstation {name}", ".SS")
    yield ".SH EXIT STATUS"
    for status, meaning in STATUSES.items():
        yield from (".TP", f"\\fB{status}\\fR", escape(meaning))
    yield ".SH FILES"
    for path, what in FILES.items():
        yield from (".TP", f"\\fI{escape(path)}\\fR", escape(what))
    yield ".SH SEE ALSO"
    yield r"\fBsystemctl\fR(1), \fBjournalctl\fR(1), \fBmosquitto_sub\fR(1)"


FILES = {
    "/etc/outstation/outstation.toml": "What to read and where to report it.",
    "/etc/outstation/outstation.d/*.toml": "Drop-ins that belong to it, in the order of their names.",
    "/var/lib/outstation": "Readings that wait, and what the devices remember.",
    "/usr/share/doc/outstation": "The manual: configuration.md, operations.md and a page for each driver.",
}


def command(one: click.Command, path: str, macro: str) -> Iterator[str]:
    context = click.Context(one, info_name=path)
    usage = " ".join(one.collect_usage_pieces(context))
    yield f'{macro} "{escape(f"{path} {usage}")}"'
    yield from prose(one.help or "")
    for parameter in one.params:
        if record := parameter.get_help_record(context):
            yield from (".TP", f"\\fB{escape(record[0])}\\fR", escape(" ".join(record[1].split())))
    if isinstance(one, click.Group):
        for name in one.list_commands(context):
            if (sub := one.get_command(context, name)) is not None:
                yield from command(sub, f"{path} {name}", ".SS")


def prose(text: str) -> Iterator[str]:
    """Paragraphs; those that begin with click's \\b stay as they are set."""
    for paragraph in re.split(r"\n\s*\n", "\n".join(line.strip("\n") for line in text.splitlines())):
        lines = [line for line in paragraph.splitlines() if line.strip()]
        if lines and lines[0].strip() == "\b":
            yield from (".PP", ".nf", *(escape(line) for line in lines[1:]), ".fi")
        elif lines:
            yield from (".PP", *(escape(line.strip()) for line in lines))


def escape(text: str) -> str:
    text = (
        text.replace("\\", r"\e")
        .replace("-", r"\-")
        .replace("'", r"\(aq")
        .replace("`", r"\(ga")
        .replace("^", r"\(ha")
        .replace("~", r"\(ti")
    )
    return f"\\&{text}" if text.startswith(".") else text


if __name__ == "__main__":
    print("\n".join(man()))
