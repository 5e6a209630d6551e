"""A command as settings, and run once an interval: started on a worker, read as a stream, ended at its deadline."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from agent.driver import ChildEnded, Context, DeviceLost, Done, Fault, Handle, Parser, PortError
from agent.driver_wanted import Wanted
from agent.ports_child import ChildPort, open_child
from agent.ports_opening import Opening

GRACE: Final = 2.0
"""Seconds between SIGTERM and SIGKILL."""


Word = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""What may be an argument or the value of a variable: no NUL, which ends one (execve(2))."""


class CommandConfig(BaseModel):
    """What is run, and where."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: tuple[Word, ...] = Field((), description='The program and its arguments, as ["sensors", "-j"].')
    shell: Word = Field(
        "", validate_default=True, description="Instead of command: a line for /bin/sh, with pipes and all."
    )
    directory: str = Field("", description="Where it runs; default: where the agent does.")
    environment: dict[str, Word] = Field({}, description="Variables that are set for it.")

    @field_validator("command")
    @classmethod
    def _named(cls, command: tuple[str, ...]) -> tuple[str, ...]:
        if command and not command[0]:
            raise ValueError('the program has no name; write command = ["program", "argument"]')
        return command

    @field_validator("shell")
    @classmethod
    def _one(cls, shell: str, info: ValidationInfo) -> str:
        if bool(shell) == bool(info.data.get("command")) and "command" in info.data:
            raise ValueError("give either command or shell")
        return shell

    @field_validator("directory")
    @classmethod
    def _whole(cls, directory: str) -> str:
        if directory and (not directory.startswith("/") or "\0" in directory):
            raise ValueError("give the whole path of the directory, as /srv/data")
        return directory

    def words(self) -> tuple[str, ...]:
        """The command as it is executed."""
        return self.command or ("/bin/sh", "-c", self.shell)

    def run(self, ctx: Context, ending: bytes) -> ChildPort:
        """Start it: for ``Driver.open``, or on a worker. ending: see ``open_child``. Raises PortError."""
        opener = partial(open_child, directory=self.directory, environment=self.environment, ending=ending)
        return ctx.open_port(self.words()[0], opener, self.words())


class Runs:
    """The runs of one command, one after another; made anew at each start of its driver."""

    def __init__(
        self, ctx: Context, opener: Callable[[], ChildPort], parser: Callable[[], Parser], *, limit: float
    ) -> None:
        """opener: starts the command, on a worker; parser: gives one for a run; limit: seconds that a run may take."""
        self._ctx = ctx
        self._opener = opener
        self._parser = parser
        self._limit = limit
        self._opening: Opening[ChildPort] | None = None  # until the run is over
        self._child: ChildPort | None = None
        self._watch: Handle | None = None
        self._late = False
        self._wanted = Wanted()

    def read_now(self, done: Done) -> None:
        """Run it now; done is told when that run, or the one that is under way, has ended."""
        self._wanted.by(done)
        if self._opening is None:
            self.begin()

    def begin(self) -> None:
        """Run it now, unless the run before has not ended, or nobody would take what it prints."""
        if self._opening is not None:
            self._ctx.emit(Fault("timeout", "the run before has not ended"))
        elif not self._ctx.blocked:
            self._late = False
            self._opening = Opening(self._opener)
            self._ctx.submit(self._opening.run, on_done=self._started, on_error=self._refused)

    def stop(self) -> None:
        """End a run that is under way: what it still prints is not read."""
        if self._opening is not None:
            self._opening.abandon()
        if self._watch is not None:
            self._watch.cancel()
        if self._child is not None:
            self._child.close()

    def _refused(self, error: BaseException) -> None:
        self._opening = None
        if not isinstance(error, PortError):
            raise error
        self._ctx.lost(str(error))  # what has to be installed or mended: said once, tried ever more slowly

    def _started(self, child: ChildPort) -> None:
        self._child = child
        self._watch = self._ctx.stream(child, self._parser(), on_end=self._ended)
        self._deadline = self._ctx.after(self._limit, self._too_late, name="deadline")

    def _too_late(self) -> None:
        assert self._child is not None
        self._late = True
        self._child.terminate()
        self._deadline = self._ctx.after(GRACE, self._child.kill, name="kill")

    def _ended(self, end: DeviceLost) -> None:
        """One run is over, and all that it printed has been parsed."""
        self._deadline.cancel()
        if self._child is not None:
            self._child.close()
        self._opening = self._child = self._watch = None
        if self._late:
            self._ctx.emit(Fault("timeout", f"not at its end after {self._limit:g} s; {end}"))
        elif not isinstance(end, ChildEnded) or end.status:
            self._ctx.emit(Fault("exit", str(end)))
        self._wanted.over()
