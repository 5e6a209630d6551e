"""The nmea driver: what belongs to one fix, and when it is known to be whole. Captures stand in tests/cases."""

from __future__ import annotations

import sys
from functools import reduce
from operator import xor
from typing import Any

import pytest

from agent.driver import Fault, Parser, PortError, Sample
from agent.nmea import LONGEST, read_fields
from agent.testing import FakeContext
from drivers.nmea import Nmea, NmeaConfig


def sentence(body: str) -> bytes:
    return b"$%s*%02X\r\n" % (body.encode(), reduce(xor, body.encode()))


def rmc(second: int, *, status: str = "A", talker: str = "GN") -> bytes:
    return sentence(f"{talker}RMC,1200{second:02},{status},4807.038,N,01131.000,E,010.0,084.4,230394,003.1,W")


def gga(second: int) -> bytes:
    return sentence(f"GNGGA,1200{second:02},4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,")


VTG = sentence("GNVTG,084.4,T,,M,010.0,N,018.5,K,A")


def gsv(part: int = 1, of: int = 1, talker: str = "GP", seen: int = 5) -> bytes:
    return sentence(f"{talker}GSV,{of},{part},{seen:02},10,63,137,17")


def parser(**options: Any) -> Parser:
    return Nmea(
        NmeaConfig(**{"name": "g", "driver": "nmea", "port": "/dev/ttyACM0", **options}), FakeContext()
    ).parser()


def fixes(fed: Parser, *sentences: bytes) -> list[list[dict[str, Any]]]:
    """What each sentence completes."""
    found = []
    for one in sentences:
        items = list(fed.feed(one))
        assert all(isinstance(item, Sample) for item in items), items
        found.append([item.fields for item in items if isinstance(item, Sample)])
    return found


def test_one_reading_a_fix() -> None:
    ctx = FakeContext("gps")
    ctx.start(Nmea, port="/dev/ttyACM0")
    ctx.port.feed(rmc(1), gga(1))
    assert not ctx.samples
    ctx.port.feed(rmc(2))
    assert ctx.samples == [
        Sample(
            {
                "time": "1994-03-23T12:00:01Z",
                "latitude": 48.1173,
                "longitude": 11.5166666667,
                "speed": 5.144,
                "course": 84.4,
                "magnetic_variation": -3.1,
                "valid": True,
                "altitude": 545.4,
                "geoid_separation": 46.9,
                "fix": 1,
                "satellites": 8,
                "hdop": 0.9,
            }
        )
    ]
    ctx.port.hang_up()
    assert len(ctx.samples) == 2


def test_the_last_sentence_of_a_fix_is_learnt_and_then_not_waited_for() -> None:
    fed = parser()
    given = [len(found) for found in fixes(fed, *(s for n in range(5) for s in (rmc(n), gga(n), gsv(1, 2), gsv(2, 2))))]
    assert given == [0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1]


def test_what_comes_after_the_learnt_end_is_not_lost_and_makes_it_wait_again() -> None:
    fed = parser()
    fixes(fed, *(s for n in range(3) for s in (rmc(n), gga(n))))  # the third is given at its end
    late, following, after = fixes(fed, gsv(), rmc(4), gga(4))
    assert (late, after) == ([], [])
    assert following == [{"time": "1994-03-23T12:00:02Z", "satellites_in_view": 5}]
    given = [len(found) for found in fixes(fed, *(s for n in range(5, 10) for s in (rmc(n), gga(n))))]
    assert given == [1, 0, 1, 0, 1, 0, 1, 1, 0, 1]


def test_sentences_without_a_time_begin_a_fix_when_they_come_again() -> None:
    fed = parser()
    empty = sentence("GNRMC,,V,,,,,,,,,,N"), sentence("GNGGA,,,,,,0,00,99.99,,,,,,"), VTG
    assert [len(found) for found in fixes(fed, *empty, *empty)] == [0, 0, 0, 1, 0, 0]


def test_satellites_in_view_are_those_of_all_systems_once() -> None:
    fed = parser()
    first = (rmc(1), gsv(1, 2, seen=11), gsv(2, 2, seen=11), gsv(1, 1, seen=9), gsv(talker="GL", seen=7))
    *_, (fix,) = fixes(fed, *first, rmc(2))
    assert fix["satellites_in_view"] == 18


@pytest.mark.parametrize("talker", ["GP", "GN", "GL", "GA", "GB", "BD", "II"])
def test_any_talker_is_read(talker: str) -> None:
    fed = parser()
    *_, (fix,) = fixes(fed, rmc(1, talker=talker), rmc(2, talker=talker))
    assert fix["latitude"] == 48.1173


@pytest.mark.parametrize(
    "without",
    [
        "GNRMC,120000,V,4807.038,N,01131.000,E,010.0,084.4,230394,003.1,W",
        "GNGGA,120000,4807.038,N,01131.000,E,0,00,99.9,545.4,M,46.9,M,,",
        "GNGNS,120000,4807.038,N,01131.000,E,NN,00,99.9,545.4,46.9,,",
        "GNGLL,4807.038,N,01131.000,E,120000,V,N",
    ],
)
def test_a_position_that_is_no_fix_is_not_published(without: str) -> None:
    fed = parser()
    fed.feed(sentence(without))
    (fix,) = fed.end()
    assert isinstance(fix, Sample)
    assert not {"latitude", "longitude", "altitude", "speed", "course"} & set(fix.fields)


def test_gll_does_not_override_what_is_known_better() -> None:
    fed = parser()
    *_, (fix,) = fixes(fed, gga(1), sentence("GNGLL,1000.0,N,02000.0,E,120001,A,A"), gga(2))
    assert fix["latitude"] == 48.1173


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"$GNVTG,,T,,M,0.145,N,0.269,K,A*00\r\n", "checksum"),
        (b"$GNVTG,,T,,M,0.145,N,0.269,K,A\r\n", "checksum"),
        (b"$GNVTG,,T,,M\xff*00\r\n", "syntax"),
        (b"noise\r\n", "syntax"),
        (b"$" + b"x" * LONGEST + b"\r\n", "too_long"),
        (sentence("GNRMC,120000,A,4807.038,N,01131.000,E,01x.0,084.4,230394,003.1,W"), "syntax"),
        (sentence("GNGGA,120000,9907.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,"), "range"),
        (sentence("GNGGA,120000,4807.038,N,01131.000,E,1,08,nan,545.4,M,46.9,M,,"), "range"),
        (sentence("GNGGA,120000,4807.038,N,01131.000,E,1,99999999999999999999,1,545.4,M,46.9,M,,"), "range"),
    ],
)
def test_what_is_wrong_is_a_fault_and_no_part_of_the_fix(line: bytes, kind: str) -> None:
    fed = parser()
    fed.feed(rmc(1))
    (fault,) = fed.feed(line)
    assert isinstance(fault, Fault)
    assert fault.kind == kind
    assert fault.detail.isprintable()
    assert [len(found) for found in fixes(fed, rmc(2))] == [1]


def test_junk_before_a_sentence_costs_not_the_sentence() -> None:
    fed = parser()
    fed.feed(b"9,N,1*00\r\n" + rmc(1))
    fault, fix = fed.feed(b"\xb5b\x01" + rmc(2))
    assert fault == Fault("syntax", "bytes that are no sentence", b"\xb5b\x01")
    assert isinstance(fix, Sample)


def test_sentences_without_a_checksum_where_the_configuration_takes_them() -> None:
    fed = parser(checksum=False)
    bare = rmc(1).partition(b"*")[0] + b"\r\n"
    assert [len(found) for found in fixes(fed, bare, rmc(2))] == [0, 1]
    (fault,) = fed.feed(rmc(3).replace(b"RMC", b"RMD"))
    assert isinstance(fault, Fault)


def test_other_sentences_are_passed_over() -> None:
    fed = parser()
    others = (
        sentence("PUBX,00,1"),
        sentence("GPTXT,01,01,02,x"),
        b"!AIVDM,1,1,,A,13u?etPv2;0n:dDPwUM1U1Cb069D,0*24\r\n",
    )
    assert fixes(fed, *others, b"\r\n", b"\0\0\r\n") == [[]] * 5
    assert fed.end() == []


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynmeagps", None)
    with pytest.raises(PortError, match=r"pip install 'outstation\[gps\]'"):
        FakeContext("gps").start(Nmea, port="/dev/ttyACM0")
    monkeypatch.undo()
    assert Nmea.lacks(None) is None


def test_fields_are_in_our_units_and_without_a_fix_there_is_no_position() -> None:
    moving = {"lat": 48.1, "lon": 11.5, "spd": 10.0, "mv": 3.1, "mvEW": "W", "status": "A"}
    assert read_fields("RMC", moving) == {
        "latitude": 48.1, "longitude": 11.5, "speed": 5.144, "magnetic_variation": -3.1, "valid": True,
    }  # fmt: skip
    assert read_fields("RMC", {**moving, "status": "V"}) == {"magnetic_variation": -3.1, "valid": False}
    assert read_fields("GGA", {"lat": 0.0, "lon": 0.0, "quality": 0, "numSV": 3}) == {"fix": 0, "satellites": 3}


def test_a_date_that_no_calendar_has_is_no_date() -> None:
    """Found by `make fuzz`: with a checksum that fits, as a receiver's own defect would send it."""
    for year in ("9999999999", "99999999999999999999", "0"):
        items = parser().feed(sentence(f"GPZDA,081415.000,26,05,{year},,") + gga(1) + gga(2))
        assert next(item for item in items if isinstance(item, Sample)).fields["time"] == "08:14:15Z"
