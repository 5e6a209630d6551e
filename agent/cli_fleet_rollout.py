"""A document's way to its boards: published, watched board by board, and taken back where a stage of it fails."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from agent.cli_fleet_desk import Desk
from agent.cli_fleet_keys import SigningKey
from agent.clock import Clock, rfc3339
from agent.errors import FleetError
from agent.fleet_document import Document, Target, sign

FINAL = ("applied", "refused", "rolled_back")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What has become of a document on one board. state: of ``FINAL``, or "silent", "offline", "devices"."""

    agent: str
    state: str
    problems: tuple[str, ...] = ()

    @property
    def well(self) -> bool:
        return self.state == "applied"


class Delivery:
    """Signs and publishes for one target. told: called with each board's outcome as it is known."""

    def __init__(
        self, desk: Desk, key: SigningKey, target: Target, clock: Clock, told: Callable[[Outcome], object]
    ) -> None:
        self._desk = desk
        self._key = key
        self._target = target
        self._clock = clock
        self._told = told

    def before(self) -> Document | None:
        """What lies there now. Raises FleetError where this key has not signed it."""
        return self._desk.document(self._target, {self._key.id: self._key.raw})

    def publish(self, config: str, only: Sequence[str] = ()) -> Document:
        """A version behind all others: the Unix time, or one more than what lies there or a board has seen."""
        now_ns = self._clock.wall_ns(self._clock.mono_ns())
        seen = [
            report["documents"].get(str(self._target), {}).get("version", 0) for report in self._desk.reports.values()
        ]
        try:
            found = self.before()
        except FleetError:  # another key's, or nobody's: the boards judge that
            found = None
        newest = max([found.version if found is not None else 0, *(v for v in seen if type(v) is int)])
        document = Document(
            self._target, max(now_ns // 1_000_000_000, newest + 1), f"{rfc3339(now_ns)[:19]}Z", config, tuple(only)
        )
        self._desk.publish(self._target, sign(document, self._key.private, self._key.id))
        return document

    def watch(self, document: Document, agents: Iterable[str], timeout: float) -> list[Outcome]:
        """Wait until each of the agents has it or says why not; those that are late are "silent" or "offline"."""
        desk, left = self._desk, set(agents)
        needed = {agent: {name for name, up in desk.devices.get(agent, {}).items() if up} for agent in left}
        found: list[Outcome] = []

        def settle(outcome: Outcome) -> None:
            left.discard(outcome.agent)
            found.append(outcome)
            self._told(outcome)

        def look() -> bool:
            for agent in sorted(left):
                outcome = self._outcome(agent, document)
                if outcome is not None and (not outcome.well or not self._missing(agent, needed[agent])):
                    settle(outcome)
            return not left

        desk.until(look, timeout)
        for agent in sorted(left):
            outcome = self._outcome(agent, document)
            if outcome is not None:
                missing = ", ".join(sorted(self._missing(agent, needed[agent])))
                settle(Outcome(agent, "devices", (f"online before, and not since: {missing}",)))
            else:
                settle(Outcome(agent, "silent" if desk.online.get(agent) else "offline"))
        return found

    def _outcome(self, agent: str, document: Document) -> Outcome | None:
        said = self._desk.reports.get(agent, {}).get("documents", {}).get(str(self._target), {})
        if (
            said.get("version") != document.version
            or said.get("state") not in FINAL
            or not self._desk.online.get(agent)
        ):
            return None
        return Outcome(agent, said["state"], tuple(map(str, said.get("problems", ()))))

    def _missing(self, agent: str, needed: set[str]) -> set[str]:
        """Devices that were online before; those that the document has removed are not missed."""
        devices = self._desk.devices.get(agent, {})
        return {name for name in needed if devices.get(name) is False}


def stages(agents: Sequence[str], shares: Sequence[float], version: str) -> list[list[str]]:
    """Agents of each canary stage, every one with those of the stages before it. Which they are is spread by a hash of
    the version, so that not the same boards always go first."""
    order = sorted(agents, key=lambda agent: hashlib.sha256(f"{version} {agent}".encode()).digest())
    counts = [min(len(order), max(1, -int(-share * len(order) // 1))) for share in shares]
    return [order[:count] for count in counts if count < len(order)]


def roll_out(
    delivery: Delivery,
    config: str,
    agents: Sequence[str],
    shares: Sequence[float],
    timeout: float,
    say: Callable[[str], object],
    begin: Callable[[int], object],
) -> bool:
    """All stages, then everybody; whether it went well. A stage that fails takes it back from all. Raises FleetError
    where what lies there now was signed by another key: it could not be put back."""
    before = delivery.before()
    old = before.config if before is not None else ""
    version = "" if before is None else str(before.version)
    for number, stage in enumerate([*stages(agents, shares, version), list(agents)], 1):
        last = len(stage) == len(agents)
        say(f"stage {number}: {'all' if last else len(stage)} of {len(agents)} boards")
        begin(len(stage))
        document = delivery.publish(config, () if last else stage)
        outcomes = delivery.watch(document, stage, timeout)
        failed = [outcome for outcome in outcomes if not outcome.well]
        if failed:
            say(f"stage {number} failed on {len(failed)} of {len(stage)} boards: taking it back")
            back = delivery.publish(old)
            begin(len(stage))
            result = delivery.watch(back, stage, timeout)
            returned = sum(outcome.well for outcome in result)
            say(f"{returned} of {len(stage)} boards are within reach with the configuration of before")
            return False
    return True


def unchanged(document: Document | None, config: str) -> bool:
    """Whether that very text lies there for all."""
    return document is not None and replace(document, config=config).digest == document.digest and not document.only
