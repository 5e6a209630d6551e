"""RFC 2217: a serial port behind a Telnet connection, whose bit rate and lines the client sets. The part without I/O.

``Telnet`` takes what arrives and gives the data in it; what has to be answered it puts into ``reply``. It speaks what
Outstation needs: BINARY (RFC 856), SUPPRESS-GO-AHEAD (RFC 858) and COM-PORT-OPTION (RFC 2217). Everything else is
refused as RFC 855 asks for. The server's FLOWCONTROL-SUSPEND is not heeded: TCP holds us off as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from agent.ports import SerialSettings

SE, SB, WILL, WONT, DO, DONT, IAC = 240, 250, 251, 252, 253, 254, 255  # RFC 854
BINARY, SUPPRESS_GO_AHEAD, COM_PORT = 0, 3, 44
SET_BAUDRATE, SET_DATASIZE, SET_PARITY, SET_STOPSIZE, SET_CONTROL = 1, 2, 3, 4, 5  # RFC 2217, section 3
SET_LINESTATE_MASK, SET_MODEMSTATE_MASK = 10, 11
SERVER: Final = 100
"""What a server adds to the number of a command when it answers it."""

_PARITY: Final = {"none": 1, "odd": 2, "even": 3, "mark": 4, "space": 5}
_STOPBITS: Final = {1: 1, 2: 2, 1.5: 3}
_FLOW: Final = {"none": 1, "xonxoff": 2, "rtscts": 3, "dsrdtr": 19}
_DTR: Final = {True: 8, False: 9}
_RTS: Final = {True: 11, False: 12}

_UNASKED: Final = {(DO, SUPPRESS_GO_AHEAD), (WILL, COM_PORT)}
"""Taken where a server begins with it: not among what ``begin`` says, so it wants an answer."""

LONGEST: Final = 64
"""Bytes of a sub-negotiation that are kept: the longest that matters has 6, a signature may be any length."""


class Telnet:
    """One connection. ``reply`` is what has to be sent next: empty it after ``begin`` and after each ``receive``."""

    def __init__(self) -> None:
        self.reply = bytearray()
        self.refused = False
        """The server does not speak RFC 2217."""
        self.granted: dict[int, bytes] = {}
        """Command of COM-PORT-OPTION -> the value that the server says it has set."""
        self._ours = {BINARY: False, SUPPRESS_GO_AHEAD: False, COM_PORT: False}  # options agreed on, by direction
        self._theirs = {BINARY: False, SUPPRESS_GO_AHEAD: False, COM_PORT: False}
        self._pending = bytearray()  # a command that is cut in two
        self._inside = False  # a sub-negotiation
        self._words = bytearray()

    @property
    def agreed(self) -> bool:
        """The server takes COM-PORT-OPTION."""
        return self._ours[COM_PORT]

    def begin(self) -> None:
        """Offer and ask for all that is needed."""
        for verb, option in ((WILL, BINARY), (DO, BINARY), (DO, SUPPRESS_GO_AHEAD), (WILL, COM_PORT)):
            self.reply += bytes((IAC, verb, option))

    def command(self, code: int, value: bytes) -> None:
        """Ask for a setting of the port."""
        self.reply += bytes((IAC, SB, COM_PORT, code)) + escape(value) + bytes((IAC, SE))

    def receive(self, data: bytes) -> bytes:
        """The data bytes in what arrived. Any bytes, cut anywhere, give the same; none raise."""
        if not self._pending and not self._inside and IAC not in data:
            return data  # nearly always
        given = bytearray()
        data = bytes(self._pending) + data
        self._pending.clear()
        at = 0
        while at < len(data):
            mark = data.find(IAC, at)
            plain = data[at : mark if mark >= 0 else len(data)]
            if self._inside:
                self._words += plain[: max(0, LONGEST - len(self._words))]
            else:
                given += plain
            if mark < 0:
                break
            length = 3 if mark + 1 < len(data) and WILL <= data[mark + 1] <= DONT and not self._inside else 2
            if mark + length > len(data):
                self._pending += data[mark:]
                break
            self._take(data[mark + 1 : mark + length], given)
            at = mark + length
        return bytes(given)

    def _take(self, command: bytes, given: bytearray) -> None:
        verb = command[0]
        if verb == IAC:  # an escaped 255
            if not self._inside:
                given.append(IAC)
            elif len(self._words) < LONGEST:
                self._words.append(IAC)
        elif self._inside:
            if verb == SE:
                self._inside = False
                self._told(bytes(self._words))
        elif verb == SB:
            self._inside = True
            self._words.clear()
        elif WILL <= verb <= DONT:
            self._negotiate(verb, command[1])

    def _told(self, words: bytes) -> None:
        if len(words) >= 2 and words[0] == COM_PORT and words[1] >= SERVER:
            self.granted[words[1] - SERVER] = words[2:]

    def _negotiate(self, verb: int, option: int) -> None:
        """RFC 1143 in short: a change is answered once, what is so already not at all."""
        table = self._ours if verb in (DO, DONT) else self._theirs
        yes, no = (WILL, WONT) if verb in (DO, DONT) else (DO, DONT)
        if verb in (DO, WILL):
            if option not in table:
                self.reply += bytes((IAC, no, option))
            elif not table[option]:
                table[option] = True
                if (verb, option) in _UNASKED:
                    self.reply += bytes((IAC, yes, option))
        else:
            if table.get(option):
                table[option] = False
                self.reply += bytes((IAC, no, option))
            if option == COM_PORT and verb == DONT:
                self.refused = True


def escape(data: bytes) -> bytes:
    """Data as it is sent: 255 doubled."""
    return data.replace(b"\xff", b"\xff\xff")


def line_settings(settings: SerialSettings) -> dict[int, bytes]:
    """What the server has to grant before a port is of use, by command (RFC 2217, section 3)."""
    return {
        SET_BAUDRATE: settings.baudrate.to_bytes(4, "big"),
        SET_DATASIZE: bytes((settings.bytesize,)),
        SET_PARITY: bytes((_PARITY[settings.parity],)),
        SET_STOPSIZE: bytes((_STOPBITS[settings.stopbits],)),
    }


def other_settings(settings: SerialSettings) -> Iterator[tuple[int, bytes]]:
    """Flow control and modem lines, and no notes about changes of the line: servers answer these as they like."""
    yield SET_LINESTATE_MASK, b"\0"
    yield SET_MODEMSTATE_MASK, b"\0"
    for value in (_FLOW[settings.flow], _DTR[settings.dtr], _RTS[settings.rts]):
        yield SET_CONTROL, bytes((value,))


def differences(settings: SerialSettings, granted: dict[int, bytes]) -> list[str]:
    """What the server has set in another way than asked for, in words."""
    names = {SET_BAUDRATE: "baudrate", SET_DATASIZE: "bytesize", SET_PARITY: "parity", SET_STOPSIZE: "stopbits"}
    return [
        f"{names[code]} {getattr(settings, names[code])} was refused"
        + (f" (it has {int.from_bytes(granted[code], 'big')})" if code in (SET_BAUDRATE, SET_DATASIZE) else "")
        for code, wanted in line_settings(settings).items()
        if code in granted and granted[code] != wanted
    ]
