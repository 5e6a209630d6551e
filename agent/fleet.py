"""Configuration from the broker: signed documents, tried as by ``reload``, and taken back unless they prove themselves.

A document goes this way: its signature, its target and its version are good -> it is kept as a trial -> the whole
configuration with it is valid -> it is applied, devices at once, all else by a restart within the process -> the broker
gives a signed document again, over what the new configuration has made: it is in force. That last step is the proof: a
board that hears its fleet's topic can be given the next configuration, whatever else is wrong with this one.

Files and signatures are work for the pool, one after another (key "fleet"); all state is the loop's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from agent.clock import Clock, rfc3339
from agent.config import Config
from agent.context_state import write_file
from agent.control import Answer
from agent.errors import ConfigError, FleetError
from agent.events import EventManager, TimerEvent, WorkRejected
from agent.fleet_document import Document, Target, target_of, verify
from agent.fleet_settings import keyring
from agent.fleet_state import FleetState, own_process, read_state, state_path
from agent.logline import Repeats, line
from agent.reload import Reloader, difference

WORK_TIMEOUT = 60.0
"""Seconds for a signature or a file: an SD card that collects its garbage takes seconds."""
SHOWN = 20
"""Problems of a document in the report; the log has them all."""


class Fleet:
    """Takes documents for this agent and its groups, one trial at a time.

    retain: publishes (topic, payload) as a state. restart: ends the
    agent in order, and begins anew with the configuration, in the same process.
    """

    def __init__(
        self,
        manager: EventManager,
        clock: Clock,
        config: Config,
        reloader: Reloader,
        *,
        subscribe: Callable[[str], object],
        retain: Callable[[str, bytes], object],
        restart: Callable[[Config], object],
        log: logging.Logger | None = None,
    ) -> None:
        self._manager = manager
        self._clock = clock
        self._config = config
        self._reloader = reloader
        self._subscribe = subscribe
        self._retain = retain
        self._restart = restart
        self._log = log or logging.getLogger("outstation.fleet")
        self._path: Path = state_path(config.outbox.file())
        self._targets = [*(Target("group", group) for group in config.fleet.groups), Target("agent", config.agent.id)]
        self._keys = keyring(config.fleet.keys)
        self._state = FleetState()
        self._pending: dict[Target, bytes] = {}  # the newest message of each target
        self._busy = True  # until the file is read; then while a document is judged or applied
        self._expired = False  # the trial is over, once a message that may save it is judged
        self._listening = False  # what comes now, comes over the configuration under trial
        self._timer: TimerEvent | None = None
        self._judged: dict[str, dict[str, Any]] = {}  # what became of documents that were not tried, by target
        self._rejected = 0
        self._reason: str | None = None
        self._repeats = Repeats()

    # --- from outside

    def start(self) -> None:
        """Read what is kept, then listen. Before the link starts."""
        self._work(partial(read_state, self._path), self._begin, self._unreadable)

    def message(self, topic: str, payload: bytes) -> None:
        """One message from the broker. What is no document's topic, and a document that was removed, is passed over."""
        target = target_of(self._config.mqtt.base, topic)
        if target in self._targets and payload:
            self._pending.pop(target, None)
            self._pending[target] = payload
            self._next()

    # --- the beginning

    def _unreadable(self, error: BaseException) -> None:
        """Beginning with nothing would let every old document in; ``fleet.min_version`` is what then holds."""
        aside = self._path.with_suffix(".damaged")
        self._log.error(line("fleet.damaged", path=aside, reason=error))

        def put_aside() -> FleetState:
            if isinstance(error, FleetError) and error.reason == "damaged":
                self._path.replace(aside)
            return FleetState()

        self._work(put_aside, self._begin, lambda _: self._begin(FleetState()))

    def _begin(self, state: FleetState) -> None:
        self._state = state
        for problem in self._config.set_aside:
            self._log.error(line("fleet.set_aside", reason=problem))
        trial = state.trial
        if trial is not None and trial.process != own_process():
            self._state = state.rolled_back("the agent ended while it was on trial")
            self._told_back()
            self._save(self._ready)
            return
        if trial is not None:  # this is the restart that it needed
            self._on_trial()
        self._ready()

    def _ready(self) -> None:
        self._report()
        self._listen()
        self._free()

    def _listen(self) -> None:
        """A subscription that is made again brings what is retained again (MQTT 3.1.1, section 3.8.4)."""
        for target in self._targets:
            self._subscribe(target.topic(self._config.mqtt.base))

    # --- one document

    def _next(self) -> None:
        if self._busy or not self._pending:
            return
        self._busy = True
        target = next(iter(self._pending))
        payload = self._pending.pop(target)
        self._work(partial(verify, payload, self._keys), partial(self._verified, target), partial(self._reject, target))

    def _reject(self, target: Target, error: BaseException) -> None:
        """Nobody's: it is counted, and changes nothing of what is said of the documents of the trusted."""
        self._rejected += 1
        reason = error.reason if isinstance(error, FleetError) else type(error).__name__
        self._reason = f"{target}: {error}"
        if times := self._repeats((target, reason)):
            self._log.warning(line("fleet.rejected", target=target, reason=reason, times=times, error=error))
            self._report()  # not for each: who floods the topic shall not have us flood the broker
        self._free()

    def _verified(self, target: Target, document: Document) -> None:
        if document.target != target:
            self._reject(target, FleetError("target", f"a document for {document.target}, published again for others"))
            return
        if self._listening:
            self._confirm(document)
            return
        self._judge(document)

    def _judge(self, document: Document) -> None:
        """It is signed, and for us: whether it is new, and whether it changes anything."""
        name, state = str(document.target), self._state
        seen, layer = state.seen.get(name), state.layers.get(name)
        least = max(seen.version if seen is not None else 0, self._config.fleet.min_version)
        if document.version < least:
            error = FleetError("older", f"version {document.version} is older than {least}")
            self._reject(document.target, error)
        elif seen is not None and document.version == seen.version:
            if document.digest != seen.digest:
                error = FleetError("older", f"another document has version {document.version} already")
                self._reject(document.target, error)
            else:
                self._free()  # it comes with each connection
        elif document.only and self._config.agent.id not in document.only:
            self._end_judged(document, "skipped")
        elif layer is not None and layer.digest == document.digest:
            self._state = state.renewed(document)
            self._judged.pop(name, None)
            self._save(self._settled)
        else:
            self._try(document)

    def _end_judged(self, document: Document, verdict: str, problems: tuple[str, ...] = ()) -> None:
        self._judged[str(document.target)] = {
            "version": document.version,
            "digest": document.digest,
            "state": verdict,
            "problems": problems[:SHOWN],
        }
        self._settled()

    # --- the trial

    def _try(self, document: Document) -> None:
        self._log.info(
            line("fleet.trial", target=document.target, version=document.version, digest=document.digest[:12])
        )
        before = self._state
        trial = before.tried(document, own_process())

        def keep_and_load() -> Config:
            write_file(self._path, trial.encode())  # first: loading reads it
            try:
                return self._reloader.load()
            except BaseException:
                write_file(self._path, before.encode())
                raise

        def loaded(new: Config) -> None:
            self._state = trial
            self._judged.pop(str(document.target), None)
            self._report()
            self._apply(new, self._applied)

        self._work(keep_and_load, loaded, partial(self._refuse, document))

    def _refuse(self, document: Document, error: BaseException) -> None:
        """It was not tried, so the same version may come again when what stood against it is mended."""
        problems = tuple(str(p) for p in error.problems) if isinstance(error, ConfigError) else (str(error),)
        self._log.error(line("fleet.refused", target=document.target, version=document.version, problems=len(problems)))
        for problem in problems:
            self._log.error(line("fleet.problem", reason=problem))
        self._end_judged(document, "refused", problems)

    def _apply(self, new: Config, done: Answer) -> None:
        """As by ``reload``; what needs a restart gets one, within this process."""
        change = difference(self._reloader.config, new)
        if change.restart:
            self._log.info(line("fleet.restarting", keys=",".join(change.restart)))
            self._restart(new)
        elif change:
            self._reloader.request(done)
        else:
            done(change, None)

    def _applied(self, _change: Any, problem: str | None) -> None:
        if problem is not None:
            self._roll_back(problem)
            return
        self._on_trial()
        self._listen()
        self._free()

    def _on_trial(self) -> None:
        self._listening = True
        self._expired = False
        self._timer = self._manager.create_timer_event(
            self._config.fleet.confirm_within, self._overdue, repeat=False, name="fleet.trial"
        )

    def _confirm(self, document: Document) -> None:
        self._stop_trial()
        self._state = self._state.confirmed()
        target, seen = list(self._state.seen.items())[-1]
        self._log.info(line("fleet.confirmed", target=target, version=seen.version, digest=seen.digest[:12]))

        def kept() -> None:
            self._report()
            self._judge(document)

        self._save(kept)

    def _overdue(self) -> None:
        self._expired = True
        if self._busy:  # with a message that may still save it
            return
        self._busy = True
        seconds = self._config.fleet.confirm_within
        self._roll_back(f"no signed document came from the broker within {seconds:g} s")

    def _roll_back(self, reason: str) -> None:
        self._stop_trial()
        self._state = self._state.rolled_back(reason)
        self._told_back()
        data = self._state.encode()

        def keep_and_load() -> Config:
            write_file(self._path, data)
            return self._reloader.load()

        self._work(
            keep_and_load, lambda old: self._apply(old, self._went_back), lambda e: self._went_back(None, str(e))
        )

    def _went_back(self, _change: Any, problem: str | None) -> None:
        if problem is not None:
            # The trial goes on in memory until the next start, which will not take it up again.
            self._log.error(line("fleet.stuck", reason=problem, remedy="mend it, then `outstation reload`"))
        self._settled()

    def _told_back(self) -> None:
        target, seen = list(self._state.seen.items())[-1]
        self._log.error(line("fleet.rolled_back", target=target, version=seen.version, reason=seen.problems[0]))

    def _stop_trial(self) -> None:
        self._listening = self._expired = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- what it says of itself

    def report(self) -> dict[str, Any]:
        """What is published at ``outstation/<agent>/fleet``, but for the time."""
        state = self._state
        documents = {
            target: {"version": s.version, "digest": s.digest, "state": s.state, "problems": s.problems}
            for target, s in state.seen.items()
        }
        return {
            "agent": self._config.agent.id,
            "groups": self._config.fleet.groups,
            "keys": list(self._keys),
            "layers": {
                target: {"version": layer.version, "issued": layer.issued, "digest": layer.digest}
                for target, layer in state.layers.items()
            },
            "documents": {**documents, **self._judged},
            "rejected": {"count": self._rejected, "last": self._reason},
            "set_aside": [str(problem) for problem in self._config.set_aside[:SHOWN]],
        }

    def _report(self) -> None:
        now = rfc3339(self._clock.wall_ns(self._clock.mono_ns()))
        self._retain(
            f"{self._config.mqtt.base}/{self._config.agent.id}/fleet", orjson.dumps({"ts": now, **self.report()})
        )

    # --- work

    def _settled(self) -> None:
        self._report()
        self._free()

    def _free(self) -> None:
        self._busy = False
        if self._expired:
            self._overdue()
        else:
            self._next()

    def _save(self, then: Callable[[], object]) -> None:
        """Keep the state; then go on, also where the disk refuses: what is in force is so in memory too."""

        def unsaved(error: BaseException) -> None:
            if times := self._repeats("unsaved"):
                self._log.error(line("fleet.unsaved", path=self._path, reason=error, times=times))
            then()

        self._work(partial(write_file, self._path, self._state.encode()), lambda _none: then(), unsaved)

    def _work(
        self,
        job: Callable[[], Any],
        on_done: Callable[[Any], object],
        on_error: Callable[[BaseException], object],
    ) -> None:
        try:
            self._manager.execute_work(
                job, on_done=on_done, on_error=on_error, key="fleet", timeout=WORK_TIMEOUT, name="fleet"
            )
        except WorkRejected as full:
            on_error(full)
