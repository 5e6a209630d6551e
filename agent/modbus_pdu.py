"""Modbus frames, both ways: what is asked becomes bytes, bytes become the answer to what was asked. Pure.

pymodbus makes and reads the PDUs, and frames what is sent. What is received we frame ourselves, as its framers are made
for a transport of its own: the RTU one throws away all that follows a bad checksum, the TCP one stays for ever at a
header that is none, and both log each such byte as an error (docs/decisions/041-modbus.md).

Source: MODBUS Application Protocol V1.1b3 ("AP"), MODBUS over Serial Line V1.02 ("SL"), MODBUS Messaging on TCP/IP
V1.0b ("TCP"). Imported by the driver when it opens: pymodbus takes 80 ms and asyncio with it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

from pymodbus.framer import FramerBase, FramerRTU, FramerSocket
from pymodbus.pdu import DecodePDU, ModbusPDU
from pymodbus.pdu.bit_message import ReadCoilsRequest, ReadDiscreteInputsRequest, WriteSingleCoilRequest
from pymodbus.pdu.register_message import (
    ReadHoldingRegistersRequest,
    ReadInputRegistersRequest,
    WriteMultipleRegistersRequest,
    WriteSingleRegisterRequest,
)

from agent.modbus_bus import Answer, Question, Refusal

KEPT: Final = 64
"""Bytes of noise that a Fault shows."""
SHORTEST: Final = 5
"""Bytes of the shortest RTU frame that answers: an exception (SL 2.5.1: address, function, code, CRC)."""

_READ: Final = {
    "coil": ReadCoilsRequest,
    "discrete": ReadDiscreteInputsRequest,
    "holding": ReadHoldingRegistersRequest,
    "input": ReadInputRegistersRequest,
}
_DECODER: Final = DecodePDU(False)
_FRAMERS: Final[dict[bool, FramerBase]] = {False: FramerRTU(_DECODER), True: FramerSocket(_DECODER)}


def request(question: Question) -> ModbusPDU:
    """The PDU that asks it."""
    if not question.words:
        return _READ[question.table](address=question.address, count=question.count, dev_id=question.unit)
    if question.table == "coil":
        return WriteSingleCoilRequest(address=question.address, bits=[bool(question.words[0])], dev_id=question.unit)
    kind = WriteSingleRegisterRequest if len(question.words) == 1 else WriteMultipleRegistersRequest
    return kind(address=question.address, registers=list(question.words), dev_id=question.unit)


class Exchange(ABC):
    """One question and the search for its answer in what comes. The same bytes give the same, however they are cut."""

    def __init__(self, question: Question, transaction: int = 0) -> None:
        pdu = request(question)
        pdu.transaction_id = transaction
        self.frame = _FRAMERS[isinstance(self, TcpExchange)].buildFrame(pdu)
        """What to send."""
        self.skipped = 0
        """Bytes that came and are no answer."""
        self.noise = b""
        """The first of them."""
        self.why = "bytes that are no answer"
        self._question = question
        self._function = pdu.function_code
        self._echo = pdu.encode()[:4]
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Answer | Refusal | None:
        """The answer, once it is there; what follows it is ``rest``. Takes linear time, and keeps 260 bytes at most."""
        self._buffer += data
        while self._buffer:
            found = self._pdu()
            if found is None:
                return None
            pdu, length = found
            outcome = self._outcome(pdu) if pdu else None
            if outcome is not None:
                del self._buffer[:length]
                return outcome
            self._skip(length)
        return None

    @property
    def rest(self) -> bytes:
        """What is not understood yet, or came after the answer."""
        return bytes(self._buffer)

    def end(self) -> tuple[int, bytes]:
        """No answer will come: (how many bytes came instead, the first of them)."""
        self._skip(len(self._buffer))
        return self.skipped, self.noise

    @abstractmethod
    def _pdu(self) -> tuple[bytes, int] | None:
        """The PDU at the start of the buffer and the length of its frame; None: more has to come.

        (b"", n): what begins here is no answer to this question; look again n bytes further on.
        """

    def _skip(self, length: int) -> None:
        if len(self.noise) < KEPT:
            self.noise += bytes(self._buffer[: min(length, KEPT - len(self.noise))])
        self.skipped += length
        del self._buffer[:length]

    def _outcome(self, pdu: bytes) -> Answer | Refusal | None:
        """None: an answer, but to another question, as one to an earlier question that comes late."""
        question = self._question
        bits = question.table in ("coil", "discrete")
        size = (question.count + 7) // 8 if bits else 2 * question.count
        if pdu[0] & 0x80:
            if len(pdu) == 2:
                return Refusal(pdu[1])
            self.why = "an exception of a wrong length"
        elif question.words:  # AP 6.5, 6.6, 6.12: the answer repeats address and value, or address and count
            if pdu[1:] == self._echo:
                return Answer(question.words)
            self.why = "an answer that repeats another request"
        elif len(pdu) != 2 + size or pdu[1] != size:
            self.why = f"an answer of {len(pdu) - 2} bytes where {size} were asked for"
        elif decoded := _DECODER.decode(pdu):
            words = decoded.bits if bits else decoded.registers
            return Answer(tuple(map(int, words[: question.count])))
        return None


class RtuExchange(Exchange):
    """Frames on a serial line, or through a serial server: address, PDU, CRC (SL 2.5.1).

    A frame's end is found by its length, not by silence as SL 2.5.1.1 has it: neither a USB adapter nor a network keeps
    gaps of 1.75 ms, and the length of every answer to what we ask follows from its first three bytes.
    """

    def _pdu(self) -> tuple[bytes, int] | None:
        buffer = self._buffer
        at = buffer.find(self._question.unit)
        if at:
            return b"", len(buffer) if at < 0 else at
        if len(buffer) < 3:
            return None if len(buffer) < 2 or buffer[1] & 0x7F == self._function else (b"", 1)
        if buffer[1] & 0x7F != self._function:
            return b"", 1
        answer = 8 if self._question.words else 5 + buffer[2]
        length = SHORTEST if buffer[1] & 0x80 else answer
        if len(buffer) < length:
            return None
        frame = bytes(buffer[:length])
        if FramerRTU.compute_CRC(frame[:-2]) != int.from_bytes(frame[-2:], "big"):
            self.why = "a checksum that does not fit"
            return b"", 1
        return frame[1:-2], length


class TcpExchange(Exchange):
    """Frames of Modbus TCP: the MBAP header, then the PDU (TCP 3.1.3)."""

    any_transaction = False
    """Take an answer whatever its transaction is: for recordings, whose numbers were another's."""

    def _pdu(self) -> tuple[bytes, int] | None:
        buffer = self._buffer
        if len(buffer) < 7:
            return None
        size = int.from_bytes(buffer[4:6], "big")
        if buffer[2:4] != b"\0\0" or not 3 <= size <= 254:  # unit, function and a byte; at most 253 bytes of PDU
            self.why = "a header that is none of Modbus TCP"
            return b"", 1
        if len(buffer) < 6 + size:
            return None
        pdu = bytes(buffer[7 : 6 + size])
        ours = self.any_transaction or buffer[:2] == self.frame[:2]
        if not ours or buffer[6] != self._question.unit or pdu[0] & 0x7F != self._function:
            self.why = "an answer to another question"
            return b"", 6 + size
        return pdu, 6 + size
