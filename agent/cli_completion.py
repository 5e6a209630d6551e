"""The command `outstation completion`, and values that only this machine knows: its serial ports."""

from __future__ import annotations

import click


@click.command(short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script by which a shell completes commands, options, files, drivers and serial ports.

    The script asks `outstation` itself at each Tab, so that it stays right when drivers are installed. bash needs 4.4.

    \b
    Examples:
      outstation completion bash > /etc/bash_completion.d/outstation
      outstation completion zsh > /usr/local/share/zsh/site-functions/_outstation
      outstation completion fish > /etc/fish/vendor_completions.d/outstation.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None, "click has these three"
    script = kind(context.find_root().command, {}, "outstation", "_OUTSTATION_COMPLETE")
    # Not source(): that runs the shell to see its version, and the shell may be another machine's.
    click.echo(script.source_template % script.source_vars())


def port_names(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """The serial ports that are here."""
    from agent.ports_list import serial_devices

    return [device.path for device in serial_devices() if device.path.startswith(incomplete)]
