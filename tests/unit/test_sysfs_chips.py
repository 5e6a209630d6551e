"""The drivers iio and hwmon on fake trees of sysfs, and on what this machine has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent import sysfs_hwmon, sysfs_iio
from agent.driver import Channel, Fault, PortError, Sample
from agent.sysfs_chips import choose, hwmon_chips, iio_chips
from agent.testing import FakeContext
from drivers.hwmon import Hwmon
from drivers.iio import Iio


class Tree:
    """A tree of sysfs: chips below their buses, links to them where the kernel has them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def iio(self, number: int, address: str, **files: str) -> Path:
        chip = self._chip(f"devices/i2c-1/{address}/iio:device{number}", files)
        self._link(f"bus/iio/devices/iio:device{number}", chip)
        return chip

    def hwmon(self, number: int, address: str, **files: str) -> Path:
        chip = self._chip(f"devices/i2c-1/{address}/hwmon/hwmon{number}", files)
        (chip / "device").symlink_to(chip.parents[1])
        self._link(f"class/hwmon/hwmon{number}", chip)
        return chip

    def _chip(self, path: str, files: dict[str, str]) -> Path:
        chip = self.root / path
        chip.mkdir(parents=True)
        for name, text in files.items():
            (chip / name).write_text(text + "\n")
        return chip

    def _link(self, path: str, chip: Path) -> None:
        link = self.root / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(chip)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    monkeypatch.setattr(Iio, "root", tmp_path)
    monkeypatch.setattr(Hwmon, "root", tmp_path)
    return Tree(tmp_path)


BME280 = {  # a Raspberry Pi's, as a page on its set-up shows it; humidity in the thousandths of Linux 4.18 and later
    "name": "bme280",
    "in_humidityrelative_input": "49611",
    "in_humidityrelative_oversampling_ratio": "1",
    "in_pressure_input": "102.112671875",
    "in_temp_input": "26050",
    "sampling_frequency_available": "1 2",
}
ADS1115 = {  # files and scale (4096 mV / 2^15) as drivers/iio/adc/ti-ads1015.c makes them
    "name": "ads1115",
    "in_voltage0_raw": "13255",
    "in_voltage0_scale": "0.125000000",
    "in_voltage0_sampling_frequency": "860",
    "in_voltage0-voltage1_raw": "-1200",
    "in_voltage0-voltage1_scale": "0.062500000",
    "scale_available": "3 2 1 0.5 0.25 0.125",
}


def read(tree: Tree, **files: str) -> tuple[dict[str, Any], list[Fault]]:
    return sysfs_iio.read(tree.iio(0, "1-0048", **files))


# ---- iio


def test_a_climate_sensor_is_one_reading_an_interval(tree: Tree) -> None:
    tree.iio(0, "1-0076", **BME280)
    ctx = FakeContext("climate")
    driver = ctx.start(Iio, chip="bme280", interval=30, channels={"pressure": {"unit": "hPa", "scale": 10}})
    ctx.run()
    assert ctx.samples == [Sample({"humidityrelative": 49.611, "pressure": 1021.12671875, "temp": 26.05})]
    assert driver.channels == (
        Channel("humidityrelative", "%", device_class="humidity", state_class="measurement"),
        Channel("pressure", "hPa", device_class="pressure", state_class="measurement"),
        Channel("temp", "°C", device_class="temperature", state_class="measurement"),
    )
    ctx.advance(30)
    assert len(ctx.samples) == 2


def test_raw_values_are_scaled_by_their_own_or_a_shared_attribute(tree: Tree) -> None:
    assert sysfs_iio.read(tree.iio(0, "1-0048", **ADS1115)) == ({"voltage0": 1.656875, "voltage0-voltage1": -0.075}, [])
    shared = {
        "in_voltage0_raw": "100",
        "in_voltage1_raw": "200",
        "in_voltage_scale": "2",
        "in_voltage0-voltage1_raw": "10",
        "in_voltage-voltage_scale": "4",
        "in_temp_ambient_raw": "-300",
        "in_temp_object_raw": "14000",
        "in_temp_offset": "-13657.500000",
        "in_temp_scale": "20",
        "in_accel_x_raw": "16384",
        "in_accel_scale": "0.000598",
        "in_intensity_both_raw": "77",
    }
    fields, faults = sysfs_iio.read(tree.iio(1, "1-0049", **shared))
    assert faults == []
    assert fields == {
        "accel_x": 9.797632,
        "intensity_both": 77,
        "temp_ambient": -279.15,
        "temp_object": 6.85,
        "voltage0": 0.2,
        "voltage0-voltage1": 0.04,
        "voltage1": 0.4,
    }
    assert isinstance(fields["intensity_both"], int)


def test_offset_is_added_before_the_scale(tree: Tree) -> None:
    fields, _ = read(tree, in_temp_raw="1000", in_temp_offset="-200", in_temp_scale="62.5")
    assert fields == {"temp": 50.0}


def test_a_processed_value_goes_before_a_raw_one_and_extremes_are_no_channels(tree: Tree) -> None:
    files = {"in_temp_input": "21500", "in_temp_raw": "1", "in_temp_peak_raw": "9", "in_temp_mean_raw": "5"}
    assert read(tree, **files, in_timestamp_en="1", in_temp_calibbias="3", in_concentration_co2_raw="0.04") == (
        {"concentration_co2": 0.04, "temp": 21.5},
        [],
    )


def test_a_channel_that_has_no_number_is_a_fault_and_takes_no_other_with_it(tree: Tree) -> None:
    chip = tree.iio(0, "1-0048", in_rot_quaternion_raw="1 2 3 4", in_temp_input="1e999", in_pressure_input="101.5")
    (chip / "in_ph_raw").mkdir()
    fields, faults = sysfs_iio.read(chip)
    assert fields == {"pressure": 101.5}
    assert [(fault.kind, fault.detail.split(":")[0]) for fault in faults] == [
        ("unreadable", "ph"),
        ("number", "rot_quaternion"),
        ("number", "temp"),
    ]


def test_a_value_outside_its_limits_is_a_fault(tree: Tree) -> None:
    tree.iio(0, "1-0076", **BME280)
    ctx = FakeContext("climate")
    ctx.start(Iio, chip="1-0076", channels={"temp": {"high": 20}}, others="drop")
    ctx.run()
    assert not ctx.samples
    (fault,) = ctx.faults
    assert fault.kind == "range"


def test_a_chip_is_named_so_that_it_stays_the_same(tree: Tree) -> None:
    tree.iio(0, "1-0048", **ADS1115, label="tank")
    tree.iio(1, "1-0049", **ADS1115)
    tree.iio(2, "1-0076", **BME280)
    found = iio_chips(tree.root)
    assert [choose(found, name, "iio").path.name for name in ("tank", "1-0049", "iio:device2", "bme280")] == [
        "iio:device0",
        "iio:device1",
        "iio:device2",
        "iio:device2",
    ]
    with pytest.raises(PortError, match=r"2 chips are called ads1115: ads1115 \(1-0048, tank, iio:device0\), ads1115"):
        choose(found, "ads1115", "iio")
    with pytest.raises(PortError, match=r"no iio chip is called scd41; .*now here: ads1115 .*bme280"):
        choose(found, "scd41", "iio")
    with pytest.raises(PortError, match="none is here now"):
        choose([], "scd41", "iio")


def test_a_chip_that_goes_is_a_loss_and_one_without_channels_does_not_open(tree: Tree) -> None:
    chip = tree.iio(0, "1-0076", **BME280)
    ctx = FakeContext("climate")
    ctx.start(Iio, chip="bme280")
    ctx.run()
    (tree.root / "bus/iio/devices/iio:device0").unlink()
    ctx.advance(10)
    assert len(ctx.losses) == 1
    assert chip.exists()
    tree.iio(3, "1-0050", name="dac", out_voltage0_raw="1")
    with pytest.raises(PortError, match="no channel"):
        FakeContext("dac").start(Iio, chip="dac")


# ---- hwmon


def test_a_monitor_is_one_reading_with_its_labels(tree: Tree) -> None:
    tree.hwmon(
        3,
        "1-0040",
        name="ina219",
        in0_input="12",
        in1_input="12552",
        in1_label="battery",
        curr1_input="-250",
        power1_average="1",
        power1_input="3138000",
        energy1_input="2500000",
        humidity1_input="45310",
        fan1_input="1200",
        freq1_input="600000000",
        temp2_input="-1000",
        temp10_input="50500",
        temp2_max="80000",
        pwm1="128",
        pwm1_enable="1",
        update_interval="2",
    )
    ctx = FakeContext("solar")
    driver = ctx.start(Hwmon, chip="ina219", interval=5)
    ctx.run()
    assert ctx.faults == []
    assert ctx.samples == [
        Sample(
            {
                "curr1": -0.25,
                "energy1": 2.5,
                "fan1": 1200,
                "freq1": 600000000,
                "humidity1": 45.31,
                "in0": 0.012,
                "battery": 12.552,
                "power1": 3.138,
                "pwm1": 50.1961,
                "temp2": -1.0,
                "temp10": 50.5,
            }
        )
    ]
    known = {channel.name: channel for channel in driver.channels}
    assert known["battery"] == Channel("battery", "V", device_class="voltage", state_class="measurement")
    assert known["energy1"].state_class == "total_increasing"
    assert [*known] == [*ctx.samples[0].fields]


def test_a_broken_sensor_and_a_silent_one_are_faults_and_equal_labels_are_not_used(tree: Tree) -> None:
    chip = tree.hwmon(
        0,
        "1-0048",
        name="nct",
        temp1_input="127000",
        temp1_fault="1",
        temp2_input="30000",
        temp2_fault="0",
        temp2_label="Sensor",
        temp3_input="31000",
        temp3_label="Sensor",
        in1_input="what",
    )
    (chip / "fan1_input").mkdir()
    fields, faults = sysfs_hwmon.read(chip)
    assert fields == {"temp2": 30.0, "temp3": 31.0}
    assert [(fault.kind, fault.detail.split(":")[0]) for fault in faults] == [
        ("unreadable", "fan1"),
        ("number", "in1"),
        ("sensor", "temp1"),
    ]


def test_monitors_are_found_by_the_place_of_their_device(tree: Tree) -> None:
    tree.hwmon(0, "1-0040", name="ina219", in1_input="1")
    tree.hwmon(1, "1-0041", name="ina219", in1_input="2")
    ctx = FakeContext("solar")
    ctx.start(Hwmon, chip="1-0041")
    ctx.run()
    assert ctx.samples == [Sample({"in1": 0.002})]
    with pytest.raises(PortError, match="2 chips are called ina219"):
        FakeContext("solar").start(Hwmon, chip="ina219")


def test_the_monitors_of_this_machine_are_read() -> None:
    for chip in hwmon_chips(Path("/sys")):  # a virtual machine may have none
        fields, faults = sysfs_hwmon.read(chip.path)
        assert {fault.kind for fault in faults} <= {"unreadable", "sensor"}
        names = [sensor.name for sensor in sysfs_hwmon.sensors(chip.path)]
        assert set(fields) <= set(names)
        assert len(set(names)) == len(names)
