"""Finding a chip and what can go wrong, with a stand-in for gpiod; what the kernel answers: tests/gpio/kernel.py."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest

from agent.driver import GpioLine, PortError
from agent.ports_gpio import find_chip, open_gpio


class Chip:
    """gpiod.Chip on a file whose text is the label; "denied" may not be opened, "other" is no chip."""

    def __init__(self, path: str) -> None:
        self.label = Path(path).read_text()
        if self.label in ("denied", "other"):
            code = errno.EACCES if self.label == "denied" else errno.ENOTTY
            raise OSError(code, os.strerror(code))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def get_info(self) -> Any:
        return SimpleNamespace(label=self.label, num_lines=8)


@pytest.fixture
def dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(sys.modules, "gpiod", SimpleNamespace(Chip=Chip, LineSettings=object, __version__="2"))
    for number, label in enumerate(("pinctrl-rp1", "expander", "expander")):
        (tmp_path / f"gpiochip{number}").write_text(label)
    (tmp_path / "gpiochip10").symlink_to("gpiochip0")  # a Pi 5 has such links
    return tmp_path


def find(dev: Path, chip: str) -> str:
    return find_chip(chip, str(dev / "gpiochip*"))


def test_by_path_name_and_label(dev: Path) -> None:
    assert find(dev, str(dev / "gpiochip1")) == str(dev / "gpiochip1")
    assert find(dev, "gpiochip2") == str(dev / "gpiochip2")
    assert find(dev, "pinctrl-rp1") == str(dev / "gpiochip0"), "once, although there is a link"


def test_what_cannot_be_found_says_what_there_is(dev: Path) -> None:
    with pytest.raises(PortError) as caught:
        find(dev, "pinctrl-bcm2711")
    assert str(caught.value) == (
        "no GPIO chip is named or labelled pinctrl-bcm2711; "
        "there are gpiochip0 (pinctrl-rp1), gpiochip1 (expander), gpiochip2 (expander)"
    )
    with pytest.raises(PortError, match="2 chips are labelled expander; name one: "):
        find(dev, "expander")
    with pytest.raises(PortError, match="gpiochip7 does not exist"):
        find(dev, str(dev / "gpiochip7"))
    (dev / "gpiochip0").write_text("denied")
    with pytest.raises(PortError, match="usermod -aG gpio") as caught:
        find(dev, "pinctrl-rp1")
    assert caught.value.reason == "permission"


def test_a_machine_without_chips(tmp_path: Path, dev: Path) -> None:
    with pytest.raises(PortError, match="this machine has no GPIO chips"):
        find_chip("pinctrl-rp1", str(tmp_path / "none*"))
    (dev / "gpiochip1").write_text("other")
    with pytest.raises(PortError, match="gpiochip1 is no GPIO chip"):
        open_gpio(str(dev / "gpiochip1"), [GpioLine(1)])


def test_without_gpiod_or_with_its_first_version_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from drivers.gpio import Gpio

    config = Gpio.Config(name="io", driver="gpio", chip="x", inputs={"a": {"line": 1}})
    monkeypatch.setitem(sys.modules, "gpiod", SimpleNamespace(__version__="1.5.4"))
    with pytest.raises(PortError, match=r"gpiod 1\.5\.4 is too old; .*pip install 'outstation\[gpio\]'"):
        open_gpio("x", [GpioLine(1)])
    assert "too old" in (Gpio.lacks(config) or "")
    monkeypatch.setitem(sys.modules, "gpiod", None)
    with pytest.raises(PortError, match="needs gpiod 2"):
        open_gpio("x", [GpioLine(1)])
    assert "needs gpiod 2" in (Gpio.lacks(config) or "")
