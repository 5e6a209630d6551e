"""Ports by what they are: trees as the kernel has them in /sys, of a Raspberry Pi with adapters."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from agent.errors import PortError
from agent.ports import SerialSettings, watched_path
from agent.ports_list import resolve, serial_devices


class Machine:
    """``sys`` and ``dev`` below a folder."""

    def __init__(self, folder: Path) -> None:
        self.sys, self.dev = folder / "sys", folder / "dev"
        (self.sys / "class/tty").mkdir(parents=True)
        (self.dev / "serial/by-id").mkdir(parents=True)

    def usb(self, tty: str, vid: str, pid: str, serial: str = "", *, interface: str = "00", product: str = "") -> None:
        # As /sys/devices/platform/.../1-1.2/1-1.2:1.0/ttyUSB0/tty/ttyUSB0
        usb = self.sys / "devices/usb1" / f"1-{tty}-{vid}"
        port = usb / f"1-1:1.{int(interface)}" / tty
        (port / "tty" / tty).mkdir(parents=True)
        for name, text in (("idVendor", vid), ("idProduct", pid), ("serial", serial), ("product", product)):
            if text:
                (usb / name).write_text(text + "\n")
        (port.parent / "bInterfaceNumber").write_text(interface + "\n")
        driver = self.sys / "bus/usb-serial/drivers/ftdi_sio"
        driver.mkdir(parents=True, exist_ok=True)
        (port / "driver").symlink_to(driver)
        (port / "tty" / tty / "device").symlink_to(port)
        (self.sys / "class/tty" / tty).symlink_to(port / "tty" / tty)
        (self.dev / tty).touch()

    def uart(self, tty: str, type_: str) -> None:
        entry = self.sys / "devices/platform" / tty / "tty" / tty
        entry.mkdir(parents=True)
        (entry / "type").write_text(type_ + "\n")
        (entry / "device").symlink_to(entry.parents[1])
        (self.sys / "class/tty" / tty).symlink_to(entry)

    def resolve(self, name: str) -> str:
        return os.path.basename(resolve(name, sys=self.sys, dev=self.dev))

    def refusal(self, name: str) -> PortError:
        with pytest.raises(PortError) as caught:
            self.resolve(name)
        return caught.value


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.usb("ttyUSB0", "0403", "6001", "A50285BI", product="FT232R USB UART")
    machine.usb("ttyUSB1", "0403", "6001", "A9XYZ")
    machine.usb("ttyUSB10", "1a86", "7523")
    machine.usb("ttyACM0", "2341", "0043", "75834353930351E0C1B1")
    return machine


def test_a_port_is_found_by_vendor_product_and_serial_number(machine: Machine) -> None:
    assert machine.resolve("usb:1a86:7523") == "ttyUSB10"
    assert machine.resolve("usb:0403:6001:A9XYZ") == "ttyUSB1"
    assert machine.resolve("USB:1A86:7523") == "ttyUSB10"


def test_several_that_fit_are_listed(machine: Machine) -> None:
    error = machine.refusal("usb:0403:6001")
    assert error.reason == "failed"
    text = str(error)
    assert "fits 2 ports" in text
    assert "ttyUSB0 (usb:0403:6001:A50285BI), " in text
    assert "ttyUSB1 (usb:0403:6001:A9XYZ)" in text
    assert text.endswith("name one by its serial number")


def test_one_that_is_not_there_tells_what_is(machine: Machine) -> None:
    error = machine.refusal("usb:0403:6001:OTHER")
    assert error.reason == "missing"
    assert "ttyACM0 (usb:2341:0043:75834353930351E0C1B1)" in str(error)
    assert str(error).index("ttyUSB1") < str(error).index("ttyUSB10")


def test_ports_of_one_adapter_differ_by_interface(machine: Machine) -> None:
    machine.usb("ttyUSB4", "0403", "6011", "FT4", interface="00")
    machine.usb("ttyUSB5", "0403", "6011", "FT4", interface="01")
    assert "or by interface" in str(machine.refusal("usb:0403:6011:FT4"))
    assert machine.resolve("usb:0403:6011:FT4:01") == "ttyUSB5"
    assert machine.resolve("usb:0403:6011::01") == "ttyUSB5"


def test_what_is_listed_has_hardware_and_stable_names(machine: Machine) -> None:
    machine.uart("ttyS0", "0")
    machine.uart("ttyAMA0", "32")
    (machine.sys / "class/tty/tty1").mkdir()
    link = machine.dev / "serial/by-id/usb-FTDI_FT232R"
    link.symlink_to("../../ttyUSB0")
    found = {os.path.basename(device.path): device for device in serial_devices(sys=machine.sys, dev=machine.dev)}
    assert list(found) == ["ttyACM0", "ttyAMA0", "ttyUSB0", "ttyUSB1", "ttyUSB10"]
    assert found["ttyAMA0"].usb is None
    first = found["ttyUSB0"]
    assert (first.driver, first.links) == ("ftdi_sio", (str(link),))
    assert first.usb is not None
    assert (first.usb.product, first.usb.name) == ("FT232R USB UART", "usb:0403:6001:A50285BI")


@pytest.mark.parametrize("name", ["usb:", "usb:403:6001", "usb:0403", "usb:0403:6001:A:1:2", "usb:zzzz:6001"])
def test_a_name_that_is_none_is_an_error_of_the_configuration(name: str) -> None:
    with pytest.raises(ValidationError, match="write usb:VID:PID"):
        SerialSettings(port=name)


def test_names_are_made_comparable() -> None:
    assert SerialSettings(port="USB:1A86:7523").port == "usb:1a86:7523"
    assert SerialSettings(port="usb:0403:6001:A50285BI").port == "usb:0403:6001:A50285BI"


def test_what_is_watched_for_a_port() -> None:
    assert watched_path("/dev/ttyUSB0") == "/dev/ttyUSB0"
    assert watched_path("usb:0403:6001") == "/dev/tty*"
    assert watched_path("socket://host:1") is None
    assert watched_path(None) is None
