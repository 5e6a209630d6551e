"""The forms of ``mqtt.format``: which codec each has, what it takes, and what can be built on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agent.codec import Codec, JsonCodec, Topics
from agent.codec_values import ValuesCodec
from agent.model import Channel

DISCOVERABLE = ("json", "values")
"""What Home Assistant's templates can read."""


def make_codec(
    form: str, agent: str, topics: Topics, channels: Callable[[str], Sequence[Channel]]
) -> Codec | ValuesCodec:
    """The codec of a form. channels: of a device, by its name. Imports only what this form needs."""
    match form:
        case "values":
            return ValuesCodec(topics)
        case "influx":
            from agent.codec_influx import InfluxCodec

            return InfluxCodec(agent)
        case "senml":
            from agent.codec_senml import SenmlCodec

            return SenmlCodec(topics, channels)
        case "cbor":
            from agent.codec_cbor import CborCodec

            return CborCodec()
    return JsonCodec()


def lacks(form: str) -> str | None:
    """What has to be installed for a form, and why it is missing; None: nothing is."""
    if form == "cbor":
        try:
            import cbor2  # noqa: F401
        except ImportError as error:
            return f"cbor2 cannot be imported ({error})"
    return None
