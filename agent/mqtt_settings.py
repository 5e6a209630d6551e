"""What ``[mqtt]`` may say: brokers, credentials, TLS, the in-flight window and the pace of reconnecting.

Secrets are no part of it: it names the place of the password, which is read at each connect and kept nowhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, LiteralString
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from agent.codec_template import Template
from agent.quantity import Interval, Size

PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
"""Schemes of a broker's URL and the port of each (IANA: 1883 mqtt, 8883 secure-mqtt)."""


@dataclass(frozen=True, slots=True)
class BrokerUrl:
    """A broker's address, taken apart. ``str()`` gives it as it may be logged: it never holds credentials."""

    scheme: str
    host: str
    port: int
    path: str = ""

    @property
    def tls(self) -> bool:
        return self.scheme in ("mqtts", "wss")

    @property
    def websocket(self) -> bool:
        return self.scheme in ("ws", "wss")

    @property
    def address(self) -> str:
        """``host:port``, an IPv6 address in brackets (RFC 3986, section 3.2.2)."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.address}{self.path}"


def parse_url(text: str) -> BrokerUrl:
    """A broker's URL. Raises PydanticCustomError, whose text never repeats a password."""
    if "@" in text.split("?")[0]:
        # The type of the error tells whoever reports it not to show the value.
        raise PydanticCustomError(
            "secret_in_url", "no user name or password in a URL: use mqtt.username and mqtt.password_file"
        )
    example = "as mqtt://192.168.1.2, mqtts://broker.example:8883 or wss://broker.example/mqtt"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise PydanticCustomError("broker_url", "not a URL ({reason})", {"reason": str(error)}) from None
    if parts.scheme not in PORTS or not parts.hostname:
        raise PydanticCustomError("broker_url", "not the URL of a broker; {example}", {"example": example})
    websocket = parts.scheme in ("ws", "wss")
    if parts.fragment or (not websocket and (parts.query or parts.path not in ("", "/"))):
        raise PydanticCustomError("broker_url", "only ws:// and wss:// have a path; {example}", {"example": example})
    if re.search(r"[\x00-\x20\x7f]", text) or port == 0:
        raise PydanticCustomError("broker_url", "not the URL of a broker; {example}", {"example": example})
    path = ((parts.path or "/mqtt") + (f"?{parts.query}" if parts.query else "")) if websocket else ""
    return BrokerUrl(parts.scheme, parts.hostname, port or PORTS[parts.scheme], path)


def _url(text: str) -> str:
    parse_url(text)
    return text


def _topic(text: str) -> str:
    """A topic prefix (MQTT 3.1.1, section 4.7): no wildcards, no empty level, not of the broker's own ``$`` tree."""
    if not text or text.startswith("$") or re.search(r"[+#\x00-\x1f\x7f]", text) or "" in text.split("/"):
        raise PydanticCustomError(
            "topic", 'not a topic: one or more levels as "plant/outstation", without "+", "#", "$" or an empty level'
        )
    return text


def _template(text: str) -> str:
    try:
        Template(text)
    except ValueError as error:
        raise PydanticCustomError("template", "{reason}", {"reason": str(error)}) from None
    return text


def _version(value: object) -> object:
    return "5" if value == 5 else value  # version = 5 is as good as version = "5"


Url = Annotated[str, AfterValidator(_url)]
Topic = Annotated[str, AfterValidator(_topic), Field(max_length=256)]
TopicTemplate = Annotated[str, AfterValidator(_template), Field(max_length=256)]


class MqttSettings(BaseModel):
    """The broker and how to talk to it."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    urls: tuple[Url, ...] = Field(
        ("mqtt://127.0.0.1",),
        description="Brokers, tried in order: mqtt://, mqtts://, ws://, wss://. "
        "Without a port 1883, 8883, 80, 443; without a path /mqtt.",
    )
    version: Annotated[Literal["3.1.1", "5"], BeforeValidator(_version)] = Field(
        "3.1.1", description="Version of MQTT."
    )
    client_id: str | None = Field(
        None,
        min_length=1,
        max_length=256,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        description="Client id; unique at the broker. Default: outstation-<agent.id>.",
    )
    base: Topic = Field("outstation", description="Topic prefix before the agent's id.")
    format: Literal["json", "values", "influx", "senml", "cbor"] = Field(
        "json",
        description="Form of the readings. values: one topic a channel, the bare value; influx: InfluxDB line "
        "protocol; senml: RFC 8428; cbor: as json, in RFC 8949 (needs outstation[cbor]).",
    )
    topic: TopicTemplate | None = Field(
        None,
        description="Where the readings go, with {agent} and {device}, and with format = values {channel}. "
        "Default: <base>/{agent}/{device}/telemetry, with values <base>/{agent}/{device}/{channel}. "
        "All other topics stay below base.",
    )
    qos: Literal[0, 1, 2] = Field(
        1, description="QoS of the readings. 0 promises nothing; state topics have at least 1."
    )
    batch: Annotated[int, Field(ge=1, le=1000)] | Literal["auto"] = Field(
        1,
        description="Readings of a device in one message at most; over 1, a message is an array. "
        "auto: single readings while the link keeps up, arrays of up to 100 when it does not.",
    )
    inflight: int = Field(
        100,
        ge=1,
        le=10_000,
        description="Messages that may wait for their acknowledgement; MQTT 5 brokers may ask for fewer.",
    )
    ack_timeout: Interval = Field(
        20.0,
        description="When the message that is first in line is not acknowledged for so long, the agent connects anew.",
    )
    keepalive: Interval = Field(
        60.0,
        ge=2,
        le=65_535,
        description="Silence before a ping, in whole seconds; a dead link is noticed within 1.5 times that.",
    )
    connect_timeout: Interval = Field(
        10.0, description="For one attempt at one URL: name, TCP, TLS and the broker's answer together."
    )
    retry_min: Interval = Field(0.5, description="Shortest pause between two rounds through the URLs.")
    retry_max: Interval = Field(
        30.0,
        description="Longest pause. In between it is a sixteenth of the time that the link has been away, less jitter.",
    )
    return_after: Interval | Literal["never"] = Field(
        10.0,
        description="With several URLs: how long the first broker must have been good before the agent returns to it "
        "from a later one. Longer where a return did not last.",
    )
    max_packet: Size = Field(
        131_072,
        ge=256,
        description="Largest MQTT packet to send; an MQTT 5 broker may ask for less. "
        "What exceeds it is split (batch), or set aside and counted.",
    )
    username: str | None = Field(None, min_length=1, max_length=4096, description="User name.")
    password_file: Path | None = Field(
        None,
        description="File with the password; a newline at its end does not count. Read at each connect. "
        "Without it and password_env, systemd's credential mqtt-password is used if there is one.",
    )
    password_env: str | None = Field(
        None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Environment variable with the password."
    )
    ca_file: Path | None = Field(
        None, description="PEM file of the authorities that may sign the broker's certificate. Default: the system's."
    )
    cert_file: Path | None = Field(None, description="PEM file of the client's certificate, with its chain.")
    key_file: Path | None = Field(None, description="PEM file of its key, unencrypted. Default: in cert_file.")
    alpn: tuple[Annotated[str, Field(min_length=1, max_length=255)], ...] = Field(
        (), description='Protocols to offer by ALPN, as ["mqtt"], or ["x-amzn-mqtt-ca"] for AWS IoT on port 443.'
    )
    insecure_skip_verify: bool = Field(
        False,
        description="Accept ANY certificate: whoever is on the way can read and forge everything. For tests alone.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> MqttSettings:
        def wrong(message: LiteralString) -> PydanticCustomError:
            return PydanticCustomError("mqtt", message)

        if not self.urls:  # min_length=1 would complain of a list that is empty only because its items are wrong
            raise wrong("urls is empty: name at least one broker")
        if self.password_file is not None and self.password_env is not None:
            raise wrong("password_file and password_env exclude each other")
        if self.username is None and (self.password_file is not None or self.password_env is not None):
            raise wrong("a password needs mqtt.username (MQTT 3.1.1, section 3.1.2.9)")
        names = Template(self.topic).names if self.topic is not None else {"device", "channel"}
        if "device" not in names:
            raise wrong('topic has no "{device}": the readings of all devices would be one stream')
        if self.format == "values" and "channel" not in names:
            raise wrong('topic has no "{channel}", and with format = "values" each channel has a topic of its own')
        if self.topic is not None and self.format != "values" and "channel" in names:
            raise wrong('topic has a "{channel}", and only with format = "values" has each channel a topic of its own')
        if self.key_file is not None and self.cert_file is None:
            raise wrong("key_file needs cert_file")
        if self.retry_max < self.retry_min:
            raise wrong("retry_max is less than retry_min")
        return self

    def brokers(self) -> tuple[BrokerUrl, ...]:
        """The URLs, taken apart, in order."""
        return tuple(map(parse_url, self.urls))
