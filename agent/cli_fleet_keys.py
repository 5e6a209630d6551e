"""An operator's signing key: one PEM file, which nobody else may read."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.fleet_settings import KEY_SCHEME, key_id

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class SigningKey:
    """Both halves. ``public`` as boards have it in fleet.keys; ``id`` as documents name it."""

    private: Ed25519PrivateKey
    raw: bytes

    @property
    def public(self) -> str:
        return KEY_SCHEME + base64.b64encode(self.raw).decode("ascii")

    @property
    def id(self) -> str:
        return key_id(self.raw)


def need_cryptography() -> None:
    """Ends the command where it is missing."""
    if find_spec("cryptography") is None:
        raise click.ClickException("cryptography is not installed: pip install 'outstation[fleet]'")


def generate(path: Path) -> SigningKey:
    """A new key in a new file of mode 0600. Raises ClickException; never overwrites: an old key may still be needed."""
    need_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise click.ClickException(f"{path} is there already; it is not overwritten: choose another name") from None
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written ({error.strerror})") from None
    with open(fd, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(fd)
    return _signing(key)


def load(path: Path) -> SigningKey:
    """The key in a file that its owner alone may read. Raises ClickException."""
    need_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            data = file.read(65_536)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be read ({error.strerror}); `fleet keygen` makes one") from None
    if mode & 0o077:
        raise click.ClickException(f"{path} has mode {mode:04o}: others may read the key; chmod 600 it")
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError):  # TypeError: it is encrypted
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise click.ClickException(f"{path} is no Ed25519 key in PEM, unencrypted, as `fleet keygen` writes it")
    return _signing(key)


def _signing(key: Ed25519PrivateKey) -> SigningKey:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return SigningKey(key, key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
