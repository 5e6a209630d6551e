"""What `check` and `drivers` print: plain text, one fact a line, no secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from textwrap import wrap

from agent.codec import Topics
from agent.config import Config, Device
from agent.config_files import Place
from agent.config_masked import masked_value
from agent.config_options import Option, driver_options, duration_text, size_text, toml
from agent.config_words import masked_url
from agent.driver import Channel
from agent.errors import PluginError, PortError
from agent.ports_list import is_usb, resolve
from agent.registry import DriverEntry, Registry, known_channels, lacking
from agent.rules_settings import published

WIDTH = 100


def report(config: Config) -> Iterator[str]:
    """What an agent with this configuration would read and publish where, and what would keep it waiting now."""
    topics = Topics(config.agent.id, config.mqtt.base, config.mqtt.topic)
    notes: list[str] = []
    yield f"The configuration is good: {', '.join(config.files)}"
    for key, lost, counts in config.overridden:
        yield f"  {key}: {_at(counts)} counts, not {_at(lost)}"
    yield ""
    yield from _rows("agent", [config.agent.id])
    yield from _rows("broker", _broker(config, notes))
    yield from _rows("outbox", [_outbox(config, notes)])
    yield from _rows("page", _page(config, notes))
    every = duration_text(config.status.interval)
    yield from _rows(
        "topics",
        [
            f"{topics.availability}  online or offline, retained, also the Will",
            f"{topics.status}  every {every}, retained",
            f"{topics.info}  retained",
        ],
    )
    if not config.devices:
        notes.append("there is no [[device]]: nothing but the status report would be published")
    for device in config.devices:
        yield ""
        yield from _rows("device", [f"{device.config.name}  (driver {device.config.driver})"])
        if hasattr(device.config, "port"):  # what others read stands in their settings
            yield from _rows("  reads", [_reads(device, notes)])
        if settings := _settings(device):
            yield from _rows("  with", wrap(settings, WIDTH - 12, break_long_words=False, break_on_hyphens=False))
        telemetry = topics.telemetry(device.config.name)
        if config.mqtt.format == "values":
            telemetry = "<channel>".join(topics.around(device.config.name))
        yield from _rows("  topics", [telemetry, topics.device_availability(device.config.name)])
        yield from _rows("  gives", _channels(device, notes))
        if missing := lacking(device.driver, device.config):
            notes.append(f"{device.config.name}: {missing}")
    if notes:
        yield ""
        yield "Not wrong, but to know:"
        for note in notes:
            yield f"  - {note}"


def _rows(title: str, rows: Iterable[str]) -> Iterator[str]:
    for number, row in enumerate(rows):
        yield f"{'' if number else title:<10}  {row}".rstrip()


def _at(place: Place) -> str:
    return f"{place.file}:{place.line}"


def _broker(config: Config, notes: list[str]) -> Iterator[str]:
    mqtt = config.mqtt
    for url in mqtt.brokers():
        yield str(url)
    who = f"as {mqtt.client_id or f'outstation-{config.agent.id}'}"
    if mqtt.username:
        who += f", user {mqtt.username}"
    if mqtt.password_file:
        who += f", password from {mqtt.password_file}"
    if mqtt.password_env:
        who += f", password from ${mqtt.password_env}"
        if mqtt.password_env not in os.environ:
            notes.append(f"${mqtt.password_env} (mqtt.password_env) is not set here")
    elif mqtt.username and not mqtt.password_file:
        who += ", password from systemd's credential mqtt-password if there is one"
    yield f"MQTT {mqtt.version} {who}"
    batch = "one a message" if mqtt.batch == 1 else f"{mqtt.batch} a message at most"
    if mqtt.format == "values":
        if mqtt.batch != 1:
            notes.append('mqtt.batch means nothing with format = "values": each value is a message of its own')
        batch = "one a channel"
    yield f"readings with QoS {mqtt.qos}, {mqtt.format}, {batch}"
    for key in ("password_file", "ca_file", "cert_file", "key_file"):
        notes += _unreadable(getattr(mqtt, key), f"mqtt.{key}")
    if mqtt.insecure_skip_verify:
        notes.append("mqtt.insecure_skip_verify: whoever is between here and the broker can read and forge everything")


def _unreadable(path: Path | None, key: str) -> Iterator[str]:
    if path is not None and not os.access(path, os.R_OK):
        reason = "cannot be read by this user" if os.path.exists(path) else "is not there now"
        yield f"{path} ({key}) {reason}"


def _page(config: Config, notes: list[str]) -> Iterator[str]:
    page = config.page
    if page.listen is not None:
        who = f"with the token in {page.token_file}" if page.token_file else "for everyone on this machine"
        yield f"http://{page.listen}/, {who}"
        notes += _unreadable(page.token_file, "page.token_file")


def _outbox(config: Config, notes: list[str]) -> str:
    outbox = config.outbox
    file = outbox.file()
    there = next(folder for folder in file.parents if folder.exists())  # it makes what is missing of its path
    if not there.is_dir():
        notes.append(f"{file} (outbox.path): {there} is not a directory")
    elif not os.access(file if file.exists() else there, os.W_OK):
        notes.append(f"{file} (outbox.path): this user may not write {'it' if file.exists() else f'to {there}'}")
    bounds = f"up to {size_text(outbox.max_bytes)} and {duration_text(outbox.max_age)}, then {outbox.policy}"
    return f"{outbox.durability}, {file}, {bounds}; replay {outbox.replay}"


def _reads(device: Device, notes: list[str]) -> str:
    port: str = device.config.port  # type: ignore[attr-defined]  # it has one, or is not asked
    if port.startswith("/"):
        if not os.path.exists(port):
            notes.append(f"{device.config.name}: {port} is not there now; it is opened as soon as it is")
        elif not os.access(port, os.R_OK | os.W_OK):
            notes.append(f"{device.config.name}: this user may not open {port}; the agent's user may need its group")
    elif is_usb(port):
        try:
            return f"{port}, which is {resolve(port)} now"
        except PortError as error:
            notes.append(f"{device.config.name}: {error}")
    return masked_url(port)


def _settings(device: Device) -> str:
    """What the configuration says of the device beyond its name, driver and port; what may be secret is masked."""
    said = device.config.model_fields_set - {"name", "driver", "port", "channels"}
    settings = {key: getattr(device.config, key) for key in device.config.__class__.model_fields if key in said}
    return ", ".join(f"{key} = {toml(masked_value(value, (key,)))}" for key, value in settings.items())


def _channels(device: Device, notes: list[str]) -> list[str]:
    try:
        channels = published(device.config.rules, known_channels(device.driver, device.config))
    except PluginError as error:
        notes.append(f"{device.config.name}: {error}")
        return ["unknown"]
    return [channel_text(channel) for channel in channels] or ["known with the first reading"]


def channel_text(channel: Channel) -> str:
    """``temperature  °C  -40..85  temperature``."""
    low, high = (f"{limit:g}" if limit is not None else "" for limit in (channel.low, channel.high))
    limits = f"{low}..{high}" if low or high else ""
    return "  ".join(filter(None, (channel.name, channel.unit, limits, channel.device_class)))


def driver_list(registry: Registry) -> Iterator[str]:
    """One line a driver; a broken one with its reason."""
    entries = registry.entries()
    name_width = max((len(entry.name) for entry in entries), default=0)
    from_width = max((len(entry.distribution) for entry in entries), default=0)
    for entry in entries:
        what = entry.summary if entry.cls else f"BROKEN: {entry.error}"
        yield f"{entry.name:<{name_width}}  {entry.distribution:<{from_width}}  {what}".rstrip()


def driver_page(entry: DriverEntry) -> Iterator[str]:
    """The driver's docstring with its sample, its channels and its options."""
    assert entry.cls is not None, "a broken driver has no page"
    yield re.sub(r"::$", ":", entry.docstring.replace("``", "`"), flags=re.MULTILINE)
    if isinstance(entry.cls.channels, Sequence) and entry.cls.channels:
        yield ""
        yield "Channels:"
        for channel in entry.cls.channels:
            yield f"  {channel_text(channel)}"
    yield ""
    yield "Options:"
    for option in driver_options(entry.cls.Config):
        yield f"  {option.key}  ({option_text(option)})"
        yield from wrap(option.meaning, WIDTH, initial_indent="      ", subsequent_indent="      ")


def option_text(option: Option) -> str:
    """``duration, > 0, default "10s"``."""
    default = option.default if option.required else f"default {option.default}" if option.default else ""
    return ", ".join(filter(None, (option.type, option.limits, default)))
