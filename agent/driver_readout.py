"""A meter that is asked for its readouts (IEC 62056-21, modes A to C): wake it, sign on, take its speed, listen.

``iec62056`` has the words; here is the time between. One timer at a time: our own next step, or the deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from agent.driver import Context, Done, Fault, Handle, Sample, SerialLine
from agent.driver_wanted import Wanted
from agent.iec62056 import BITS, SWITCH, WAKEUP, WAKEUP_PAUSE, Readout, ReadoutFramer, answer, question


class Asking:
    """The conversation with one meter, readout after readout; made anew at each start of its driver."""

    def __init__(
        self,
        ctx: Context,
        port: SerialLine,
        read: Callable[[Readout], Iterable[Sample | Fault]],
        *,
        baudrate: int,
        address: str = "",
        fast: bool = True,
        wakeup: bool = False,
        silence: float = 5.0,
    ) -> None:
        """read: what a readout says; baudrate: at first; silence: seconds of it after which a readout is given up."""
        self._ctx = ctx
        self._port = port
        self._read = read
        self._baudrate = self._rate = baudrate
        self._address = address
        self._fast = fast
        self._wakeup = wakeup
        self._silence = silence
        self._framer: ReadoutFramer | None = None  # while a readout is under way
        self._accepted = False  # the speed that the meter offers has been answered
        self._timer: Handle | None = None
        self._expecting = False
        self._wanted = Wanted()

    def start(self, interval: float) -> None:
        """Begin: a question each ``interval`` seconds, the first one now."""
        self._ctx.watch(self._port, self._readable)
        self._ctx.every(interval, self.ask, first_after=0.0)

    def read_now(self, done: Done) -> None:
        """Ask now; done is told when that readout, or the one that is coming in, is over."""
        self._wanted.by(done)
        self.ask()

    def ask(self) -> None:
        """Ask now, unless a readout is still coming in, or nobody would take it."""
        if self._framer is not None or self._ctx.blocked:
            return
        self._framer, self._accepted = ReadoutFramer(), False
        self._switch(self._baudrate)
        if self._wakeup:
            self._port.write(WAKEUP)
            self._after(len(WAKEUP) * BITS / self._baudrate + WAKEUP_PAUSE, self._request)
        else:
            self._request()

    def _request(self) -> None:
        self._port.write(question(self._address))
        self._expect()

    def _readable(self) -> None:
        data, framer = self._port.read(), self._framer
        if framer is None:
            return
        found = framer.feed(data)
        if found or framer.ended:
            self._done(found)
        elif framer.name and not self._accepted:
            self._accepted = True
            self._accept(framer.name[4:5])
        elif self._expecting:
            self._expect()

    def _accept(self, offer: bytes) -> None:
        """The meter has said its name, and with it the speed that it can."""
        told, rate = answer(offer, fast=self._fast)
        if told:
            self._port.write(told)
        if told and rate is not None:  # at the old speed until the last bit is out
            self._after(len(told) * BITS / self._rate + SWITCH, self._go_on, rate)
        else:
            self._go_on(rate or self._rate)

    def _go_on(self, rate: int) -> None:
        self._switch(rate)
        self._expect()

    def _switch(self, rate: int) -> None:
        if rate != self._rate:
            self._port.set_baudrate(rate)
            self._rate = rate

    def _silent(self) -> None:
        assert self._framer is not None, "the timer ends with the readout"
        self._done([*self._framer.end(), Fault("timeout", f"silent for {self._silence:g} s")])

    def _done(self, found: Iterable[Readout | Fault]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._framer = None
        for each in found:
            self._ctx.emit(*([each] if isinstance(each, Fault) else self._read(each)))
        self._wanted.over()

    def _expect(self) -> None:
        """The meter has the word: this much silence, and it is given up."""
        self._after(self._silence, self._silent)
        self._expecting = True

    def _after(self, delay: float, fn: Callable[..., object], *args: object) -> None:
        """One timer at a time: our own next step, or the deadline."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._ctx.after(delay, fn, *args)
        self._expecting = False
