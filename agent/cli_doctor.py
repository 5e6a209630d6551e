"""The command `outstation doctor`: what it takes, and how findings are shown. What it looks at is cli_doctor_checks."""

from __future__ import annotations

import json
import sys

import click

from agent.cli_config import EX_CONFIG, config_option


@click.command(short_help="Look for what keeps the agent from working, each with its remedy.")
@config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
@click.option("--offline", is_flag=True, help="Connect to no broker.")
def doctor(file: str, as_json: bool, offline: bool) -> None:
    """Look for what keeps the agent from working, each with its remedy.

    Looks at the configuration, the ports and who has them open, what the service may open, each broker (name, TCP, TLS,
    login, a message there and back), whether another agent has this id, the clock, the disk, what an eMMC says of its
    wear, and the systemd unit. Opens no port and changes nothing; the message goes to <base>/<agent>/doctor, not
    retained. Run it as the agent's user: rights are judged for whoever asks.

    \b
    Exit status:
      0   nothing that keeps the agent from working; there may be warnings
      1   a problem was found
      78  the configuration is wrong; nothing that needs it was looked at

    \b
    Examples:
      outstation doctor
      outstation doctor -c my.toml --offline
      outstation doctor --json | jq -r '.findings[] | select(.level != "ok") | .remedy'
    """
    from agent.cli_doctor_checks import examine

    findings = list(examine(file, online=not offline))
    problems = sum(finding.level == "problem" for finding in findings)
    if as_json:
        said = [
            {"check": one.check, "level": one.level, "text": one.text, "remedy": one.remedy or None} for one in findings
        ]
        click.echo(json.dumps({"problems": problems, "findings": said}, ensure_ascii=False))
    else:
        for one in findings:
            click.echo(f"{one.level:<8} {one.check:<10} {one.text}")
            if one.remedy:
                click.echo(f"{'':<19} -> {one.remedy}")
        click.echo("no problem" if not problems else f"{problems} problem{'' if problems == 1 else 's'}")
    wrong = any(one.check == "config" and one.level == "problem" for one in findings)
    sys.exit(EX_CONFIG if wrong else 1 if problems else 0)
