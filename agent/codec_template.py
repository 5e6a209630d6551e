"""Where the readings go, by a template of the configuration (``mqtt.topic``): names to topics and back. Pure.

Source: MQTT 3.1.1, section 4.7. Each placeholder has a level for itself and a fixed text around it at most. So a topic
tells its device again, and two devices, or two channels of one, never share a topic.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

PLACEHOLDERS = ("agent", "device", "channel")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_NAME = "[A-Za-z0-9_-]+"  # of agents and devices, as configured; of channels, as channel_topic() writes them


class Template:
    """``site/{agent}/{device}``: a topic with names left open."""

    def __init__(self, text: str) -> None:
        """Raises ValueError, which says what is wrong and what would be right."""
        if (
            not text
            or text.startswith("$")
            or re.search(r"[+#\x00-\x1f\x7f]", text)
            or "" in text.split("/")
            or "{" in (rest := _PLACEHOLDER.sub("", text))
            or "}" in rest
        ):
            raise ValueError(
                'not a topic: levels as "site/{agent}/{device}", without "+", "#", "$", an empty level or single braces'
            )
        self.text = text
        names: list[str] = []
        for level in text.split("/"):
            found = _PLACEHOLDER.findall(level)
            if unknown := [name for name in found if name not in PLACEHOLDERS]:
                raise ValueError(f"{{{unknown[0]}}} is no placeholder; there are {{agent}}, {{device}} and {{channel}}")
            if len(found) > 1:
                raise ValueError(
                    f'"{level}" holds two placeholders, and "a_b" with "c" would be "a" with "b_c"; '
                    "give each a level of its own"
                )
            names += found
        if twice := [name for name in PLACEHOLDERS if names.count(name) > 1]:
            raise ValueError(f"{{{twice[0]}}} stands twice")
        self.names = frozenset(names)
        """The placeholders that it has."""
        self._pattern = re.compile("/".join(_pattern(level) for level in text.split("/")))

    def fill(self, **names: str) -> str:
        """The topic; a name that the template does not ask for is passed over."""
        return self.text.format_map(names)

    def fill_agent(self, agent: str) -> str:
        """The template of one agent, with its id in it."""
        return self.text.replace("{agent}", agent)

    def filter(self) -> str:
        """What a subscriber asks for, of all agents and devices."""
        return "/".join("+" if "{" in level else level for level in self.text.split("/"))

    def read(self, topic: str) -> dict[str, str] | None:
        """The names in a topic; None: it is not one of this template's."""
        match = self._pattern.fullmatch(topic)
        return None if match is None else match.groupdict()

    def meets(self, own: str, *, never: Iterable[str]) -> bool:
        """Whether it can give a topic that ``own`` stands for, where ``+`` is any level.

        never: names that no device has, and no channel in a topic.
        """
        levels, others = self.text.split("/"), own.split("/")
        return len(levels) == len(others) and all(
            other == "+"
            or (
                re.fullmatch(_pattern(level), other) is not None
                and not (level in ("{device}", "{channel}") and other in never)
            )
            for level, other in zip(levels, others, strict=True)
        )


def _pattern(level: str) -> str:
    """A level as a regular expression, with a group for its placeholder."""
    before, brace, rest = level.partition("{")
    name, _, after = rest.partition("}")
    return re.escape(before) + (f"(?P<{name}>{_NAME}){re.escape(after)}" if brace else "")
