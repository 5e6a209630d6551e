"""Keys, requests, certificates and passwords on the board's disk, each checked before it is stored.

Key and certificate are one file, ``client.pem``: replaced by rename(2), so that no connection ever meets a key beside
the certificate of another. Every error ends the command (ClickException) and leaves what was there.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli_fleet_keys import need_cryptography
from agent.clock import Clock
from agent.config_files import quoted
from agent.context_state import write_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate

REQUEST_KEY, REQUEST, CLIENT = "request.key", "request.csr", "client.pem"
_LONGEST = 1 << 20  # bytes of a file: a chain of ten certificates has 20 kB


def make_request(directory: Path, agent: str, *, new_key: bool) -> Path:
    """The request's file, for the key in ``request.key``, which is made if there is none."""
    need_cryptography()
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key_path, path = directory / REQUEST_KEY, directory / REQUEST
    key = None if new_key or not key_path.exists() else _key(_read(key_path), key_path)
    if key is None:
        key = ec.generate_private_key(ec.SECP256R1())
        _store(key_path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, agent)])
    # Signed anew each time (ECDSA is not deterministic); the key in it is the same.
    made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, SHA256())
    _store(path, made.public_bytes(Encoding.PEM))
    return path


def install_certificate(directory: Path, source: Path, ca: Path | None, agent: str) -> tuple[Path, datetime]:
    """Store it with its key; where, and until when it is valid."""
    need_cryptography()
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    chain = _chain(source)
    leaf = chain[0]
    key = _key_of(leaf, directory)
    _judge(leaf, agent)
    for certificate, issuer in pairwise(chain):
        if not _signed_by(certificate, [issuer]):
            raise click.ClickException(
                f"{source}: the chain is broken: {_name(certificate)} is not signed by {_name(issuer)}"
            )
    if ca is not None and not _signed_by(chain[-1], authorities := _chain(ca)) and chain[-1] not in authorities:
        raise click.ClickException(f"{source}: {_name(chain[-1])} is not signed by an authority in {ca}")
    path = directory / CLIENT
    pem = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)
    _store(path, pem + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    for name in (REQUEST_KEY, REQUEST):  # the request is answered, or was of another key: it is of no use any more
        (directory / name).unlink(missing_ok=True)
    return path, _times(leaf)[1]


def take_token(directory: Path, source: Path, agent: str) -> list[str]:
    """Store what the token has, remove it; the lines of ``[mqtt]`` that use it."""
    data = _read(source)
    mode = source.stat().st_mode & 0o777
    if mode & 0o077:
        raise click.ClickException(f"{source} has mode {mode:04o}: others may have read it; have a new one made")
    try:
        table: dict[str, Any] = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):  # no text of it is shown: a password stands there
        raise click.ClickException(f"{source} is no TOML file") from None
    if unknown := sorted(table.keys() - {"agent", "username", "password", "ca"}):
        raise click.ClickException(f"{source} has {', '.join(unknown)}; a token has agent, username, password and ca")
    for name in ("agent", "username", "password"):
        if not isinstance(table.get(name), str) or not table[name]:
            raise click.ClickException(f"{source} has no {name}, or it is no text")
    if table["agent"] != agent:
        raise click.ClickException(f"{source} is for the agent {table['agent']}; this one is {agent}")
    lines = [f"username = {quoted(table['username'], 4096)}"]
    ca = table.get("ca")
    if ca is not None:
        if not isinstance(ca, str) or "-----BEGIN CERTIFICATE-----" not in ca:
            raise click.ClickException(f"{source}: ca is no certificate in PEM")
        _store(directory / "broker-ca.pem", ca.encode())
        lines.append(f'ca_file = "{directory / "broker-ca.pem"}"')
    _store(directory / "password", table["password"].encode() + b"\n")
    try:
        source.unlink()
    except OSError as error:
        raise click.ClickException(f"stored; but {source} cannot be removed ({error.strerror}): remove it") from None
    return [*lines, f'password_file = "{directory / "password"}"']


def _judge(leaf: Certificate, agent: str) -> None:
    """Whose it is, and since and until when."""
    from cryptography.x509 import NameOID

    names = [attribute.value for attribute in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [agent]:
        said = ", ".join(map(str, names)) or "nobody"
        raise click.ClickException(f"the certificate is for the common name {said}; this agent is {agent}")
    clock = Clock()
    now = datetime.fromtimestamp(clock.wall_ns(clock.mono_ns()) // 1_000_000_000, UTC)
    begin, end = _times(leaf)
    if not begin <= now <= end:
        span = f"from {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"
        raise click.ClickException(
            f"the certificate is valid {span}; here it is {now:%Y-%m-%d %H:%M}: is the clock right?"
        )


def _times(leaf: Certificate) -> tuple[datetime, datetime]:
    if hasattr(leaf, "not_valid_after_utc"):  # from 42 on; before that the times have no zone, and mean UTC
        return leaf.not_valid_before_utc, leaf.not_valid_after_utc
    return leaf.not_valid_before.replace(tzinfo=UTC), leaf.not_valid_after.replace(tzinfo=UTC)


def _key_of(leaf: Certificate, directory: Path) -> EllipticCurvePrivateKey:
    """The key that the certificate is for, of those that are here."""
    wanted = leaf.public_key()
    for name in (REQUEST_KEY, CLIENT):
        path = directory / name
        if path.exists():
            key = _key(_read(path), path)
            if key.public_key() == wanted:
                return key
    raise click.ClickException(
        f"the certificate is for none of the keys in {directory}: make a request there, and have that signed"
    )


def _signed_by(certificate: Certificate, issuers: Sequence[Certificate]) -> bool:
    from cryptography.exceptions import InvalidSignature

    for issuer in issuers:
        try:
            certificate.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature):  # another name, another kind of key, or no signature of it
            continue
        return True
    return False


def _name(certificate: Certificate) -> str:
    return certificate.subject.rfc4514_string() or "a certificate without a name"


def _chain(path: Path) -> list[Certificate]:
    from cryptography.x509 import load_pem_x509_certificates

    try:
        return load_pem_x509_certificates(_read(path))
    except ValueError:
        raise click.ClickException(f"{path} has no certificate in PEM") from None


def _key(data: bytes, path: Path) -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    # Behind its certificates: not every release finds it there.
    start = data.find(b"-----BEGIN PRIV" + b"ATE KEY-----")
    try:
        key = load_pem_private_key(data[max(0, start) :], password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, EllipticCurvePrivateKey):
        raise click.ClickException(f"{path} has no EC key in PEM, unencrypted; `enrol request --new-key` makes one")
    return key


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LONGEST)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be read ({error.strerror})") from None


def _store(path: Path, data: bytes) -> None:
    """The file as a whole, with mode 0600, below a directory that only its owner may enter."""
    try:
        # Root enrols, and the service's user reads: whose directory it is, whose file it is.
        owner = next(directory for directory in path.parents if directory.is_dir()).stat()
        made = not path.parent.is_dir()
        if made:
            path.parent.mkdir(parents=True)
            path.parent.chmod(0o700)
        write_file(path, data)
        if os.geteuid() == 0 and owner.st_uid != 0:
            for item in (path.parent, path) if made else (path,):
                os.chown(item, owner.st_uid, owner.st_gid)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written ({error.strerror})") from None
