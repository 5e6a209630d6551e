"""The commands `outstation enrol ...`: how a board comes by what it shows to the broker."""

from __future__ import annotations

from pathlib import Path

import click

from agent.cli_config import config_option, load_config

_DIRECTORY = click.option(
    "-d",
    "--directory",
    type=click.Path(path_type=Path),
    default=Path("/etc/outstation/tls"),
    show_default=True,
    metavar="DIR",
    help="Where key and certificate are kept; made with mode 0700.",
)


@click.group(short_help="Get this board its key and certificate, or its password.")
def enrol() -> None:
    """Get this board what it shows to the broker: a certificate for a key that never leaves it, or a password.

    With certificates: `request` makes the key and a request, you have that signed, `install` checks and stores what
    comes back. With a password: `token` takes a file that was made for this board. None of them connects anywhere.

    \b
    Examples:
      outstation enrol request
      outstation enrol install greenhouse-1.pem --ca clients-ca.pem
      outstation enrol token token.toml
    """


@enrol.command(short_help="Make a key, and a request for its certificate.")
@config_option
@_DIRECTORY
@click.option("--new-key", is_flag=True, help="A new key, also where a request is under way.")
def request(file: str, directory: Path, new_key: bool) -> None:
    """Make an EC key (P-256) and a certificate request with the agent's id as common name.

    The key stays in DIR/request.key (mode 0600) until `install` has its certificate; the present one goes on being
    used. Called again it makes the same request.

    \b
    Example:
      outstation enrol request && cat /etc/outstation/tls/request.csr
    """
    from agent.cli_enrol_files import make_request

    agent = load_config(file).agent.id
    path = make_request(directory, agent, new_key=new_key)
    click.echo(f"{path}: have it signed for the common name {agent}, then `outstation enrol install CERTIFICATE`")


@enrol.command(short_help="Check a certificate, and store it with its key.")
@click.argument("certificate", type=click.Path(path_type=Path))
@config_option
@_DIRECTORY
@click.option("--ca", type=click.Path(path_type=Path), metavar="FILE", help="The authority that must have signed it.")
def install(certificate: Path, file: str, directory: Path, ca: Path | None) -> None:
    """Check CERTIFICATE (PEM, with its chain), and store it with its key in DIR/client.pem (mode 0600).

    It has to belong to the key of `request`, or to the key in DIR/client.pem (a renewal), to be valid now, to name the
    agent, and each certificate has to be signed by the next; with --ca the last one by that. A running agent uses it
    from its next connection on.

    \b
    Example:
      outstation enrol install greenhouse-1.pem --ca clients-ca.pem
    """
    from agent.cli_enrol_files import install_certificate

    config = load_config(file)
    path, until = install_certificate(directory, certificate, ca, config.agent.id)
    click.echo(f"{path}: stored, valid until {until:%Y-%m-%d}")
    if ca is None:
        click.echo("which authority signed it was not looked at; --ca FILE names the one that must have", err=True)
    if config.mqtt.cert_file != path:
        click.echo(f'for the configuration:\n\n[mqtt]\ncert_file = "{path}"')


@enrol.command(short_help="Store the password of a file that was made for this board.")
@click.argument("token", type=click.Path(path_type=Path))
@config_option
@_DIRECTORY
def token(token: Path, file: str, directory: Path) -> None:
    """Store user name and password of TOKEN, and remove it: it is of use once.

    TOKEN is TOML: agent (the id that it is for), username, password, and at choice ca (the broker's authorities, PEM).
    Only its owner may read it. The password goes to DIR/password, ca to DIR/broker-ca.pem, both with mode 0600.

    \b
    Example:
      outstation enrol token /boot/firmware/token.toml
    """
    from agent.cli_enrol_files import take_token

    lines = take_token(directory, token, load_config(file).agent.id)
    click.echo("for the configuration:\n\n[mqtt]\n" + "\n".join(lines))
