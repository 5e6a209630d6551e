"""The document that carries a configuration to boards, and its signature. Pure: bytes in, a document or a refusal out.

On the wire, as a retained message at ``<base>/fleet/group/<name>`` or ``<base>/fleet/agent/<id>``::

    {"payload": "<base64>", "key": "<id of the public key>", "sig": "<base64>"}

``sig`` is the Ed25519 signature (RFC 8032) of ``outstation-fleet-1`` and a newline, followed by the very bytes of the
payload: nothing is written anew before it is checked, so there is no canonical form to get wrong. The payload, JSON::

    {"target": "group/greenhouse", "version": 1795557600, "issued": "2026-11-24T22:00:00Z", "config": "<TOML>"}

and ``"only": ["<agent>", ...]`` while a rollout tries it on some. Nothing of a payload is looked at before its
signature is good.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from agent.errors import FleetError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

CONTEXT = b"outstation-fleet-1\n"
"""Goes before what is signed: a signature made for anything else is none here."""
LONGEST = 196_608
"""Bytes of a message: what an MQTT 5 broker is told to send us at most is 262,144, and a thousand devices take less."""
HIGHEST = 2**53
"""Of a version: the largest whole number that every JSON parser keeps (RFC 8259, section 6)."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MOST = 10_000  # agents in "only"
_ISSUED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


class Target(NamedTuple):
    """Whom a document is for. kind: "group" or "agent"; ``str()`` gives ``group/greenhouse``."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"

    def topic(self, base: str) -> str:
        return f"{base}/fleet/{self}"


def parse_target(text: object) -> Target:
    """The target written ``group/<name>`` or ``agent/<id>``. Raises FleetError."""
    kind, slash, name = text.partition("/") if isinstance(text, str) else ("", "", "")
    if kind not in ("group", "agent") or not slash or not _NAME.fullmatch(name):
        raise FleetError("malformed", f"{text!r} is no target", "write group/<name> or agent/<id>")
    return Target(kind, name)


def target_of(base: str, topic: str) -> Target | None:
    """Whom a document at this topic is for; None: it is no topic of a document."""
    prefix = f"{base}/fleet/"
    if not topic.startswith(prefix):
        return None
    try:
        return parse_target(topic[len(prefix) :])
    except FleetError:
        return None


def digest(config: str) -> str:
    """What names a configuration: SHA-256 of its UTF-8, in hex."""
    return hashlib.sha256(config.encode("utf-8")).hexdigest()


@dataclass(frozen=True, slots=True)
class Document:
    """A configuration for a target. issued: RFC 3339, UTC, for people: boards go by ``version`` alone, as their clocks
    may be wrong. only: agents of the group that take it now; empty: all."""

    target: Target
    version: int
    issued: str
    config: str
    only: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        return digest(self.config)


def sign(document: Document, key: Ed25519PrivateKey, name: str) -> bytes:
    """The message of a document. name: ``key_id`` of the public key. Raises FleetError if it is too long."""
    table: dict[str, Any] = {
        "target": str(document.target),
        "version": document.version,
        "issued": document.issued,
        "config": document.config,
    }
    if document.only:
        table["only"] = list(document.only)
    payload = orjson.dumps(table)
    signature = key.sign(CONTEXT + payload)
    message = orjson.dumps({"payload": _encoded(payload), "key": name, "sig": _encoded(signature)})
    if len(message) > LONGEST:
        raise FleetError(
            "malformed", f"the document has {len(message)} bytes, of at most {LONGEST}", "split it over groups"
        )
    return message


def verify(message: bytes, keys: Mapping[str, bytes]) -> Document:
    """The document of a message that one of the keys has signed. Imports ``cryptography``: on a worker.

    Raises FleetError: "malformed", "unsigned", "unknown_key" or "bad_signature".
    """
    if len(message) > LONGEST:
        raise FleetError("malformed", f"a message of {len(message)} bytes; at most {LONGEST} are read")
    envelope = _table(message, "the message")
    if not envelope.get("sig") or not envelope.get("key"):
        raise FleetError("unsigned", "the message is not signed", "publish it by `outstation fleet push`")
    payload, signature = _decoded(envelope, "payload"), _decoded(envelope, "sig")
    name = envelope["key"]
    public = keys.get(name) if isinstance(name, str) else None
    if public is None:
        trusted = ", ".join(keys) or "none"
        raise FleetError("unknown_key", f"signed by the key {str(name)[:32]!r}; trusted here: {trusted}")

    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, CONTEXT + payload)
    except InvalidSignature:
        raise FleetError("bad_signature", f"the signature by {name} is wrong: the document was changed") from None
    return _document(_table(payload, "the payload"))


def _document(table: dict[str, Any]) -> Document:
    if unknown := table.keys() - {"target", "version", "issued", "config", "only"}:
        raise FleetError(
            "malformed", f"the payload has {', '.join(sorted(unknown))}", "made by a newer release? update this one"
        )
    version, issued, config = table.get("version"), table.get("issued"), table.get("config")
    only = table.get("only", [])
    if type(version) is not int or not 1 <= version <= HIGHEST:
        raise FleetError("malformed", f"version is a whole number from 1 to 2^53, not {str(version)[:40]}")
    if not isinstance(issued, str) or not _ISSUED.fullmatch(issued):
        raise FleetError("malformed", "issued is a time in UTC, as 2026-11-24T22:00:00Z")
    if not isinstance(config, str):
        raise FleetError("malformed", "config is the text of a TOML file")
    if (
        not isinstance(only, list)
        or len(only) > _MOST
        or not all(isinstance(a, str) and _NAME.fullmatch(a) for a in only)
    ):
        raise FleetError("malformed", f"only is a list of at most {_MOST} agents")
    if "only" in table and not only:
        raise FleetError("malformed", "only is there and names no agent")
    return Document(parse_target(table.get("target")), version, issued, config, tuple(only))


def _table(data: bytes, what: str) -> dict[str, Any]:
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise FleetError("malformed", f"{what} is no JSON object")
    return found


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decoded(table: dict[str, Any], key: str) -> bytes:
    text = table.get(key)
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):  # ValueError: not ASCII
        pass
    raise FleetError("malformed", f"{key} is no base64 text")
