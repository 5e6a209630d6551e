"""Cyclic redundancy checks by their name in the RevEng catalogue, and the sums that other devices use. Pure.

Source: Greg Cook, Catalogue of parametrised CRC algorithms (reveng.sourceforge.io/crc-catalogue), all of its algorithms
of whole bytes; the model is R. Williams, A painless guide to CRC error detection algorithms, 1993, sections 15 to 17.

Why not a library: docs/decisions/042-checks-by-name.md.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Final, NamedTuple

from pydantic import AfterValidator


class CrcModel(NamedTuple):
    """What makes a CRC, in the catalogue's terms; reflected: its refin and refout, which are equal in all of these.

    check: what it gives for the nine bytes "123456789"; a test holds it.
    """

    width: int
    poly: int
    init: int
    reflected: bool
    xorout: int
    check: int


CRCS: Final = {
    "crc-8/autosar": CrcModel(8, 0x2F, 0xFF, False, 0xFF, 0xDF),
    "crc-8/bluetooth": CrcModel(8, 0xA7, 0x00, True, 0x00, 0x26),
    "crc-8/cdma2000": CrcModel(8, 0x9B, 0xFF, False, 0x00, 0xDA),
    "crc-8/darc": CrcModel(8, 0x39, 0x00, True, 0x00, 0x15),
    "crc-8/dvb-s2": CrcModel(8, 0xD5, 0x00, False, 0x00, 0xBC),
    "crc-8/gsm-a": CrcModel(8, 0x1D, 0x00, False, 0x00, 0x37),
    "crc-8/gsm-b": CrcModel(8, 0x49, 0x00, False, 0xFF, 0x94),
    "crc-8/hitag": CrcModel(8, 0x1D, 0xFF, False, 0x00, 0xB4),
    "crc-8/i-432-1": CrcModel(8, 0x07, 0x00, False, 0x55, 0xA1),
    "crc-8/i-code": CrcModel(8, 0x1D, 0xFD, False, 0x00, 0x7E),
    "crc-8/lte": CrcModel(8, 0x9B, 0x00, False, 0x00, 0xEA),
    "crc-8/maxim-dow": CrcModel(8, 0x31, 0x00, True, 0x00, 0xA1),
    "crc-8/mifare-mad": CrcModel(8, 0x1D, 0xC7, False, 0x00, 0x99),
    "crc-8/nrsc-5": CrcModel(8, 0x31, 0xFF, False, 0x00, 0xF7),
    "crc-8/opensafety": CrcModel(8, 0x2F, 0x00, False, 0x00, 0x3E),
    "crc-8/rohc": CrcModel(8, 0x07, 0xFF, True, 0x00, 0xD0),
    "crc-8/sae-j1850": CrcModel(8, 0x1D, 0xFF, False, 0xFF, 0x4B),
    "crc-8/smbus": CrcModel(8, 0x07, 0x00, False, 0x00, 0xF4),
    "crc-8/tech-3250": CrcModel(8, 0x1D, 0xFF, True, 0x00, 0x97),
    "crc-8/wcdma": CrcModel(8, 0x9B, 0x00, True, 0x00, 0x25),
    "crc-16/arc": CrcModel(16, 0x8005, 0x0000, True, 0x0000, 0xBB3D),
    "crc-16/cdma2000": CrcModel(16, 0xC867, 0xFFFF, False, 0x0000, 0x4C06),
    "crc-16/cms": CrcModel(16, 0x8005, 0xFFFF, False, 0x0000, 0xAEE7),
    "crc-16/dds-110": CrcModel(16, 0x8005, 0x800D, False, 0x0000, 0x9ECF),
    "crc-16/dect-r": CrcModel(16, 0x0589, 0x0000, False, 0x0001, 0x007E),
    "crc-16/dect-x": CrcModel(16, 0x0589, 0x0000, False, 0x0000, 0x007F),
    "crc-16/dnp": CrcModel(16, 0x3D65, 0x0000, True, 0xFFFF, 0xEA82),
    "crc-16/en-13757": CrcModel(16, 0x3D65, 0x0000, False, 0xFFFF, 0xC2B7),
    "crc-16/genibus": CrcModel(16, 0x1021, 0xFFFF, False, 0xFFFF, 0xD64E),
    "crc-16/gsm": CrcModel(16, 0x1021, 0x0000, False, 0xFFFF, 0xCE3C),
    "crc-16/ibm-3740": CrcModel(16, 0x1021, 0xFFFF, False, 0x0000, 0x29B1),
    "crc-16/ibm-sdlc": CrcModel(16, 0x1021, 0xFFFF, True, 0xFFFF, 0x906E),
    "crc-16/iso-iec-14443-3-a": CrcModel(16, 0x1021, 0xC6C6, True, 0x0000, 0xBF05),
    "crc-16/kermit": CrcModel(16, 0x1021, 0x0000, True, 0x0000, 0x2189),
    "crc-16/lj1200": CrcModel(16, 0x6F63, 0x0000, False, 0x0000, 0xBDF4),
    "crc-16/m17": CrcModel(16, 0x5935, 0xFFFF, False, 0x0000, 0x772B),
    "crc-16/maxim-dow": CrcModel(16, 0x8005, 0x0000, True, 0xFFFF, 0x44C2),
    "crc-16/mcrf4xx": CrcModel(16, 0x1021, 0xFFFF, True, 0x0000, 0x6F91),
    "crc-16/modbus": CrcModel(16, 0x8005, 0xFFFF, True, 0x0000, 0x4B37),
    "crc-16/nrsc-5": CrcModel(16, 0x080B, 0xFFFF, True, 0x0000, 0xA066),
    "crc-16/opensafety-a": CrcModel(16, 0x5935, 0x0000, False, 0x0000, 0x5D38),
    "crc-16/opensafety-b": CrcModel(16, 0x755B, 0x0000, False, 0x0000, 0x20FE),
    "crc-16/profibus": CrcModel(16, 0x1DCF, 0xFFFF, False, 0xFFFF, 0xA819),
    "crc-16/riello": CrcModel(16, 0x1021, 0xB2AA, True, 0x0000, 0x63D0),
    "crc-16/spi-fujitsu": CrcModel(16, 0x1021, 0x1D0F, False, 0x0000, 0xE5CC),
    "crc-16/t10-dif": CrcModel(16, 0x8BB7, 0x0000, False, 0x0000, 0xD0DB),
    "crc-16/teledisk": CrcModel(16, 0xA097, 0x0000, False, 0x0000, 0x0FB3),
    "crc-16/tms37157": CrcModel(16, 0x1021, 0x89EC, True, 0x0000, 0x26B1),
    "crc-16/umts": CrcModel(16, 0x8005, 0x0000, False, 0x0000, 0xFEE8),
    "crc-16/usb": CrcModel(16, 0x8005, 0xFFFF, True, 0xFFFF, 0xB4C8),
    "crc-16/xmodem": CrcModel(16, 0x1021, 0x0000, False, 0x0000, 0x31C3),
    "crc-24/ble": CrcModel(24, 0x00065B, 0x555555, True, 0x000000, 0xC25A56),
    "crc-24/flexray-a": CrcModel(24, 0x5D6DCB, 0xFEDCBA, False, 0x000000, 0x7979BD),
    "crc-24/flexray-b": CrcModel(24, 0x5D6DCB, 0xABCDEF, False, 0x000000, 0x1F23B8),
    "crc-24/interlaken": CrcModel(24, 0x328B63, 0xFFFFFF, False, 0xFFFFFF, 0xB4F3E6),
    "crc-24/lte-a": CrcModel(24, 0x864CFB, 0x000000, False, 0x000000, 0xCDE703),
    "crc-24/lte-b": CrcModel(24, 0x800063, 0x000000, False, 0x000000, 0x23EF52),
    "crc-24/openpgp": CrcModel(24, 0x864CFB, 0xB704CE, False, 0x000000, 0x21CF02),
    "crc-24/os-9": CrcModel(24, 0x800063, 0xFFFFFF, False, 0xFFFFFF, 0x200FA5),
    "crc-32/aixm": CrcModel(32, 0x814141AB, 0x00000000, False, 0x00000000, 0x3010BF7F),
    "crc-32/autosar": CrcModel(32, 0xF4ACFB13, 0xFFFFFFFF, True, 0xFFFFFFFF, 0x1697D06A),
    "crc-32/base91-d": CrcModel(32, 0xA833982B, 0xFFFFFFFF, True, 0xFFFFFFFF, 0x87315576),
    "crc-32/bzip2": CrcModel(32, 0x04C11DB7, 0xFFFFFFFF, False, 0xFFFFFFFF, 0xFC891918),
    "crc-32/cd-rom-edc": CrcModel(32, 0x8001801B, 0x00000000, True, 0x00000000, 0x6EC2EDC4),
    "crc-32/cksum": CrcModel(32, 0x04C11DB7, 0x00000000, False, 0xFFFFFFFF, 0x765E7680),
    "crc-32/iscsi": CrcModel(32, 0x1EDC6F41, 0xFFFFFFFF, True, 0xFFFFFFFF, 0xE3069283),
    "crc-32/iso-hdlc": CrcModel(32, 0x04C11DB7, 0xFFFFFFFF, True, 0xFFFFFFFF, 0xCBF43926),
    "crc-32/jamcrc": CrcModel(32, 0x04C11DB7, 0xFFFFFFFF, True, 0x00000000, 0x340BC6D9),
    "crc-32/mef": CrcModel(32, 0x741B8CD7, 0xFFFFFFFF, True, 0x00000000, 0xD2C22F51),
    "crc-32/mpeg-2": CrcModel(32, 0x04C11DB7, 0xFFFFFFFF, False, 0x00000000, 0x0376E6E7),
    "crc-32/xfer": CrcModel(32, 0x000000AF, 0x00000000, False, 0x00000000, 0xBD0BE338),
    "crc-64/ecma-182": CrcModel(
        64, 0x42F0E1EBA9EA3693, 0x0000000000000000, False, 0x0000000000000000, 0x6C40DF5F0B497347
    ),
    "crc-64/go-iso": CrcModel(64, 0x000000000000001B, 0xFFFFFFFFFFFFFFFF, True, 0xFFFFFFFFFFFFFFFF, 0xB90956C775A41001),
    "crc-64/ms": CrcModel(64, 0x259C84CBA6426349, 0xFFFFFFFFFFFFFFFF, True, 0x0000000000000000, 0x75D4B74F024ECEEA),
    "crc-64/nvme": CrcModel(64, 0xAD93D23594C93659, 0xFFFFFFFFFFFFFFFF, True, 0xFFFFFFFFFFFFFFFF, 0xAE8B14860A799888),
    "crc-64/redis": CrcModel(64, 0xAD93D23594C935A9, 0x0000000000000000, True, 0x0000000000000000, 0xE9C6D914C4B8D9CA),
    "crc-64/we": CrcModel(64, 0x42F0E1EBA9EA3693, 0xFFFFFFFFFFFFFFFF, False, 0xFFFFFFFFFFFFFFFF, 0x62EC59E3F1A4F00A),
    "crc-64/xz": CrcModel(64, 0x42F0E1EBA9EA3693, 0xFFFFFFFFFFFFFFFF, True, 0xFFFFFFFFFFFFFFFF, 0x995DC9BBDF1939FA),
}
"""By the catalogue's name for each, in small letters."""

ALIASES: Final = {
    "arc": "crc-16/arc",
    "b-crc-32": "crc-32/bzip2",
    "cksum": "crc-32/cksum",
    "crc-16/acorn": "crc-16/xmodem",
    "crc-16/aug-ccitt": "crc-16/spi-fujitsu",
    "crc-16/autosar": "crc-16/ibm-3740",
    "crc-16/buypass": "crc-16/umts",
    "crc-16/ccitt-false": "crc-16/ibm-3740",
    "crc-16/ccitt-true": "crc-16/kermit",
    "crc-16/darc": "crc-16/genibus",
    "crc-16/epc": "crc-16/genibus",
    "crc-16/epc-c1g2": "crc-16/genibus",
    "crc-16/i-code": "crc-16/genibus",
    "crc-16/iec-61158-2": "crc-16/profibus",
    "crc-16/iso-hdlc": "crc-16/ibm-sdlc",
    "crc-16/iso-iec-14443-3-b": "crc-16/ibm-sdlc",
    "crc-16/lha": "crc-16/arc",
    "crc-16/lte": "crc-16/xmodem",
    "crc-16/maxim": "crc-16/maxim-dow",
    "crc-16/v-41-lsb": "crc-16/kermit",
    "crc-16/v-41-msb": "crc-16/xmodem",
    "crc-16/verifone": "crc-16/umts",
    "crc-16/x-25": "crc-16/ibm-sdlc",
    "crc-24": "crc-24/openpgp",
    "crc-32": "crc-32/iso-hdlc",
    "crc-32/aal5": "crc-32/bzip2",
    "crc-32/adccp": "crc-32/iso-hdlc",
    "crc-32/base91-c": "crc-32/iscsi",
    "crc-32/castagnoli": "crc-32/iscsi",
    "crc-32/dect-b": "crc-32/bzip2",
    "crc-32/interlaken": "crc-32/iscsi",
    "crc-32/posix": "crc-32/cksum",
    "crc-32/v-42": "crc-32/iso-hdlc",
    "crc-32/xz": "crc-32/iso-hdlc",
    "crc-32c": "crc-32/iscsi",
    "crc-32d": "crc-32/base91-d",
    "crc-32q": "crc-32/aixm",
    "crc-64": "crc-64/ecma-182",
    "crc-64/go-ecma": "crc-64/xz",
    "crc-8": "crc-8/smbus",
    "crc-8/aes": "crc-8/tech-3250",
    "crc-8/ebu": "crc-8/tech-3250",
    "crc-8/itu": "crc-8/i-432-1",
    "crc-8/maxim": "crc-8/maxim-dow",
    "crc-a": "crc-16/iso-iec-14443-3-a",
    "crc-b": "crc-16/ibm-sdlc",
    "crc-ibm": "crc-16/arc",
    "dow-crc": "crc-8/maxim-dow",
    "jamcrc": "crc-32/jamcrc",
    "kermit": "crc-16/kermit",
    "modbus": "crc-16/modbus",
    "pkzip": "crc-32/iso-hdlc",
    "r-crc-16": "crc-16/dect-r",
    "x-25": "crc-16/ibm-sdlc",
    "x-crc-16": "crc-16/dect-x",
    "xfer": "crc-32/xfer",
    "xmodem": "crc-16/xmodem",
    "zmodem": "crc-16/xmodem",
}
"""The catalogue's other names. It has "CRC-CCITT" for KERMIT, others for IBM-3740: that name is left out."""


@dataclass(frozen=True, slots=True)
class Check:
    """A checksum or CRC: its name, its bytes on the wire, and how it is computed over a frame's bytes.

    low_first: as a rule its low byte is sent first, as with every reflected CRC and Fletcher's sums.
    """

    name: str
    size: int
    compute: Callable[[bytes], int]
    low_first: bool = False

    def __reduce__(self) -> tuple[Callable[[str], Check], tuple[str]]:
        """By its name: functions made at run time have no pickle, and parsers go to other processes."""
        return check_named, (self.name,)


def crc(model: CrcModel) -> Callable[[bytes], int]:
    """The function for one model: by a table of 256 entries, 65 ns a byte (CPython 3.11, 3 GHz)."""
    width, poly, init, reflected, xorout, _ = model
    table = _table(width, poly, reflected)
    if reflected:
        begin = _mirrored(init, width)

        def right(data: bytes) -> int:
            value = begin
            for byte in data:
                value = value >> 8 ^ table[(value ^ byte) & 0xFF]
            return value ^ xorout

        return right
    mask, shift = (1 << width) - 1, width - 8

    def left(data: bytes) -> int:
        value = init
        for byte in data:
            value = value << 8 & mask ^ table[value >> shift ^ byte]
        return value ^ xorout

    return left


@lru_cache(maxsize=16)
def _table(width: int, poly: int, reflected: bool) -> tuple[int, ...]:
    entries = []
    for byte in range(256):
        value = _mirrored(byte, 8) << (width - 8) if reflected else byte << (width - 8)
        for _ in range(8):
            value = value << 1 ^ (poly if value >> (width - 1) & 1 else 0)
            value &= (1 << width) - 1
        entries.append(_mirrored(value, width) if reflected else value)
    return tuple(entries)


def _mirrored(value: int, width: int) -> int:
    return int(f"{value:0{width}b}"[::-1], 2)


def _xor(data: bytes) -> int:
    value = 0
    for byte in data:
        value ^= byte
    return value


def _fletcher(data: bytes, modulus: int) -> int:
    first = second = 0
    for byte in data:
        first = (first + byte) % modulus
        second = (second + first) % modulus
    return second << 8 | first


SUMS: Final = {
    check.name: check
    for check in (
        Check("sum8", 1, lambda data: sum(data) & 0xFF),
        Check("sum8-ones", 1, lambda data: ~sum(data) & 0xFF),
        Check("sum8-twos", 1, lambda data: -sum(data) & 0xFF),
        Check("sum16", 2, lambda data: sum(data) & 0xFFFF),
        Check("sum16-twos", 2, lambda data: -sum(data) & 0xFFFF),
        Check("xor8", 1, _xor),
        Check("fletcher-16", 2, lambda data: _fletcher(data, 255), low_first=True),
        Check("fletcher-16/ubx", 2, lambda data: _fletcher(data, 256), low_first=True),
    )
}
"""Sums of bytes: plain, its ones' complement, its two's complement (so that all bytes add up to 0), exclusive or.

fletcher-16 is J. Fletcher's of 1982, modulo 255; /ubx is modulo 256 (u-blox M8 protocol description, section 32.4).
"""


def check_named(name: str) -> Check:
    """The check of that name, in letters of any case. Raises ValueError, which names those that are like it."""
    word = name.lower()
    word = ALIASES.get(word, word)
    if word in SUMS:
        return SUMS[word]
    if word in CRCS:
        model = CRCS[word]
        return Check(word, model.width // 8, crc(model), low_first=model.reflected)
    known = [*SUMS, *CRCS, *ALIASES]
    near = difflib.get_close_matches(word, known, n=4, cutoff=0.5) or [*SUMS, "crc-16/modbus", "crc-32"]
    raise ValueError(
        f"no check is called so; near it are {', '.join(near)}; names are those of the RevEng catalogue of CRCs"
    )


def _known(name: str) -> str:
    return check_named(name).name


CheckName = Annotated[str, AfterValidator(_known)]
"""A name that ``check_named`` knows."""
