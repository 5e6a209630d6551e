"""What ``[fleet]`` may say: who may send this board its configuration, and how far that goes."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from agent.quantity import Interval

KEY_SCHEME = "ed25519:"
KEY_BYTES = 32
"""Length of an Ed25519 public key (RFC 8032, section 5.1.5)."""


def parse_key(text: str) -> bytes:
    """The 32 bytes of a public key written ``ed25519:<base64>``. Raises ValueError."""
    try:
        key = base64.b64decode(text.removeprefix(KEY_SCHEME), validate=True)
    except binascii.Error:
        key = b""
    if not text.startswith(KEY_SCHEME) or len(key) != KEY_BYTES:
        raise ValueError("not a public key; `outstation fleet keygen` prints one, as ed25519:<44 characters>")
    return key


def key_id(key: bytes) -> str:
    """The name by which a document says who has signed it: the first 8 bytes of the key's SHA-256, in hex."""
    import hashlib  # and with it OpenSSL, which an agent without a fleet may not need

    return hashlib.sha256(key).hexdigest()[:16]


def keyring(texts: Iterable[str]) -> dict[str, bytes]:
    """Public keys by their ids. Raises ValueError."""
    return {key_id(key): key for key in map(parse_key, texts)}


def _key(text: str) -> str:
    try:
        parse_key(text)
    except ValueError as error:
        raise PydanticCustomError("fleet_key", "{reason}", {"reason": str(error)}) from None
    return text


Group = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=64)]
Key = Annotated[str, AfterValidator(_key)]


class FleetSettings(BaseModel):
    """Configuration from the broker, by signed documents."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = Field(False, description="Take documents, and apply them (needs outstation[fleet]).")
    keys: tuple[Key, ...] = Field(
        (),
        max_length=16,
        description="Public keys that may sign, as `outstation fleet keygen` prints them: two while one is replaced.",
    )
    groups: tuple[Group, ...] = Field(
        (),
        max_length=8,
        description="Groups of this board. A later one counts more, and most what is for the board alone.",
    )
    confirm_within: Interval = Field(
        120.0,
        ge=1.0,
        description="A new configuration is taken back unless the broker gives the agent a signed document again under "
        "it, within this time.",
    )
    min_version: int = Field(
        0,
        ge=0,
        le=2**53,
        description="Documents of a lower version are refused: for a new board, which has seen none and could be given "
        "an old one.",
    )
    deny_drivers: tuple[str, ...] = Field(
        ("exec",),
        max_length=64,
        description="Drivers whose devices no document may add or change; exec runs any command.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> FleetSettings:
        if self.enabled and not self.keys:
            raise PydanticCustomError("fleet", "enabled needs keys: nobody else may send a configuration")
        if len(set(self.groups)) < len(self.groups):
            raise PydanticCustomError("fleet", "groups names one twice")
        return self
