"""Readings in other forms than JSON, back to what they are in JSON: for whoever judges what arrived. Pure.

Source: RFC 8949; InfluxDB 2, "Line protocol"; RFC 8428. It reads what ``agent.codec_*`` writes; of other writers' it
takes what says the same. Names and units stay as these forms have them.
"""

from __future__ import annotations

import math
import re
from typing import Any

import orjson

from agent.clock import rfc3339

_MARKS = ("resumed", "clock", "backfill")

_HEAD = re.compile(r"(?:[^ \\\n]|\\.)+ ")  # measurement and tags
_FIELD = re.compile(r'((?:[^\\,= \n]|\\.)+)=("(?:[^"\\]|\\.)*"|[^", \n]+)(,|\ )', re.DOTALL)
_TIME = re.compile(r"-?\d{1,19}(?:\n|$)")
_LATEST_NS = 253_402_300_800 * 10**9  # the year 10000


def from_cbor(payload: bytes) -> Any:
    """A map, or an array of maps. Raises ValueError, also where cbor2 is not installed."""
    try:
        import cbor2
    except ImportError as error:
        raise ValueError(f"CBOR, and cbor2 cannot be imported ({error}); pip install 'outstation[cbor]'") from None
    try:
        # To JSON and back: CBOR knows keys, numbers and tags that no reading has.
        return orjson.loads(orjson.dumps(cbor2.loads(payload)))
    except (cbor2.CBORDecodeError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"not CBOR ({error})") from None


def is_senml(said: Any) -> bool:
    """Whether this JSON is a pack: its first record has the base name of the records."""
    return isinstance(said, list) and bool(said) and isinstance(said[0], dict) and isinstance(said[0].get("bn"), str)


def from_senml(records: list[Any]) -> list[dict[str, Any]]:
    """Readings in a pack; each begins with its ``:seq``. Raises ValueError."""
    items: list[dict[str, Any]] = []
    for record in records:
        if not isinstance(record, dict) or not isinstance(name := record.get("n"), str):
            raise ValueError('SenML, and a record without a name "n"')
        value = next((record[key] for key in ("v", "vb", "vs") if key in record), None)
        if name == ":seq":
            items.append({"ts": _time(record.get("bt")), "seq": value, "fields": {}})
        elif not items:
            raise ValueError('SenML, and it does not begin with ":seq"')
        elif name == ":unsynced":
            items[-1]["clock"] = "unsynced"
        elif name.startswith(":"):
            items[-1][name[1:]] = value
        else:
            items[-1]["fields"][name] = value
    return items


def _time(seconds: Any) -> str:
    """The time of a record; none is the time at which it comes, and so no text."""
    if seconds is None:
        return ""
    if not isinstance(seconds, int | float) or not 0 <= seconds * 1e9 < _LATEST_NS:
        raise ValueError('SenML, and a time "bt" that is none')
    return rfc3339(round(seconds * 1e6) * 1000)


def from_influx(payload: bytes) -> list[dict[str, Any]]:
    """Readings in lines of measurement, tags, fields and time. Raises ValueError."""
    try:
        text = payload.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"neither JSON nor line protocol ({error})") from None
    items: list[dict[str, Any]] = []
    at = 0
    while at < len(text):
        item: dict[str, Any] = {"ts": "", "seq": None, "fields": {}}
        if (head := _HEAD.match(text, at)) is None:
            raise ValueError("neither JSON nor line protocol")
        at = head.end()
        more = True
        while more:
            if (field := _FIELD.match(text, at)) is None:
                raise ValueError(f"line protocol, and no field at character {at}")
            key = re.sub(r"\\([,= ])", r"\1", field[1])
            (item if key == "seq" or key in _MARKS else item["fields"])[key] = _value(field[2])
            at = field.end()
            more = field[3] == ","
        if (time := _TIME.match(text, at)) is None or not 0 <= int(time[0]) < _LATEST_NS:
            raise ValueError("line protocol, and no time in nanoseconds at the end of a line")
        item["ts"] = rfc3339(int(time[0]))
        items.append(item)
        at = time.end()
    return items


def _value(text: str) -> Any:
    if text[0] == '"':
        return re.sub(r'\\(["\\])', r"\1", text[1:-1])
    if text in ("true", "false"):
        return text == "true"
    if match := re.fullmatch(r"(-?\d{1,20})[iu]?", text):
        whole = int(match[1])
        return whole if -(2**63) <= whole < 2**64 else float(whole)
    number = float(text)  # ValueError, which says what it is
    if not math.isfinite(number):
        raise ValueError(f"line protocol, and {text} is no number")
    return number
