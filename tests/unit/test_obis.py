"""agent.obis: codes, units and data sets of electricity meters."""

from __future__ import annotations

from decimal import Decimal

import pytest

from agent.obis import REGISTERS, UNITS, data_sets, measured, value


@pytest.mark.parametrize(
    ("code", "number", "unit", "published"),
    [
        ("1-0:1.8.1", "001581.123", "kWh", ("energy_import_t1", 1581.123)),
        ("1-0:1.8.0*255", "6545766", "Wh", ("energy_import", 6545.766)),
        ("1.8.0", "12.5", "MWh", ("energy_import", 12500.0)),
        ("1-1:2.8.0", "1", "kWh", ("energy_export", 1.0)),
        ("1-0:1.7.255*255", "2.12486", "kW", ("power_import", 2124.86)),
        ("16.7", "-299.12", "W", ("power", -299.12)),
        ("1-0:52.7.0", "0230.1", "V", ("voltage_l2", 230.1)),
        ("1-0:13.7.0", "0.92", "", ("power_factor", 0.92)),
        ("0-0:96.14.0", "0002", "", ("tariff", 2)),
        # Known by its code, but not in the unit for which the name stands.
        ("0-0:17.0.0", "016", "A", ("0-0:17.0.0", 16.0)),
        ("1.8.0", "12.5", "", ("1.8.0", 12.5)),
        # Without a name.
        ("6.26*255", "00428.35", "m3", ("6.26", 428.35)),
        ("1-0:5.8.0", "0.5", "kvarh", ("1-0:5.8.0", 0.5)),
        ("2-0:1.8.0", "1", "kWh", ("2-0:1.8.0", 1.0)),
        # A serial number, a clock, what was billed, lists of the past, no code at all.
        ("0.0.0", "05296170", "", None),
        ("0.9.1", "134558", "", None),
        ("1.8.0*01", "12.5", "kWh", None),
        ("1.8.0&12", "12.5", "kWh", None),
        ("1-0:99.97.0", "237126", "s", None),
        ("0-0:98.1.0", "1.5", "kW", None),
        ("F.F.F.F", "1", "W", None),
    ],
)
def test_a_register_is_published_under_its_name_and_in_its_unit(
    code: str, number: str, unit: str, published: tuple[str, float] | None
) -> None:
    found = value(code, Decimal(number), unit)
    assert repr(found) == repr(published)


def test_a_name_means_one_quantity_and_its_unit_is_one_that_is_published() -> None:
    names = [register.name for register in REGISTERS.values()]
    assert len(names) == len(set(names))
    assert {register.unit for register in REGISTERS.values()} <= {unit for unit, _ in UNITS.values()} | {"°"}


def test_a_line_may_hold_several_data_sets_or_go_on_with_the_last() -> None:
    lines = [b"6.8(0006047*kWh)6.26(00428.35*m3)9.21(99999999)", b"0-1:24.3.0(1)(m3)\r", b"(00001.001)\r", b""]
    assert data_sets(lines) == (
        [
            ("6.8", ["0006047*kWh"]),
            ("6.26", ["00428.35*m3"]),
            ("9.21", ["99999999"]),
            ("0-1:24.3.0", ["1", "m3", "00001.001"]),
        ],
        [],
    )


@pytest.mark.parametrize(
    "bad", [b"1.8.0(1*kWh", b"1.8.0(1*kWh)x", b"1.8.0", b"1.8.0(1\xff*kWh)", b"1.8.0(1)(2)2.8.0((3)"]
)
def test_of_a_line_that_is_none_nothing_is_taken(bad: bytes) -> None:
    assert data_sets([b"2.8.0(2*kWh)", bad]) == ([("2.8.0", ["2*kWh"])], [bad])


def test_values_before_any_code_are_bad() -> None:
    assert data_sets([b"(1)"]) == ([], [b"(1)"])


@pytest.mark.parametrize(
    ("values", "number"),
    [
        (["0000000.000*kWh"], (Decimal(0), "kWh")),
        (["170102161005W", "00000.107*m3"], (Decimal("0.107"), "m3")),
        (["0.35*kW", "0612011115"], (Decimal("0.35"), "kW")),
        (["0002"], (Decimal(2), "")),
        (["700101010000W", "00000000"], None),
        (["3960221976967177082151037881335713"], None),
        (["80 01"], None),
        ([""], None),
    ],
)
def test_the_number_of_a_data_set(values: list[str], number: tuple[Decimal, str] | None) -> None:
    assert measured(values) == number
