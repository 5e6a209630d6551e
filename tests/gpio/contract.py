"""What requested GPIO lines do: one contract for the real kernel (kernel.py) and for the fake (test_gpio_fake.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import pytest

from agent.driver import DeviceLost, GpioLine, GpioPort
from agent.edges import Edge, EdgeFramer


class World(Protocol):
    """A chip of eight lines, all low."""

    def open(self, lines: Sequence[GpioLine]) -> GpioPort:
        """Request lines; closed by the fixture."""

    def drive(self, offset: int, high: bool) -> None:
        """The world makes a line high or low. The edge is in the kernel when this returns."""

    def level(self, offset: int) -> bool:
        """Whether a line is high."""

    def remove(self) -> None:
        """The chip goes."""


def edges(port: GpioPort, framer: EdgeFramer) -> list[tuple[str, bool, int]]:
    """What came: name, rising, missed before it."""
    found = framer.feed(port.read())
    assert all(isinstance(edge, Edge) for edge in found), found
    return [(edge.name, edge.rising, edge.missed) for edge in found if isinstance(edge, Edge)]


class Contract:
    """Give ``world`` as a fixture."""

    def test_edges_come_in_order_and_are_of_the_logical_level(self, world: World) -> None:
        port = world.open([GpioLine(3, edges="both"), GpioLine(5, edges="both", active_low=True)])
        framer = EdgeFramer(dict(zip(port.offsets, ("a", "b"), strict=True)))
        assert port.levels() == (False, True)
        assert port.read() == b""
        for offset, high in ((3, True), (5, True), (3, False), (5, False)):
            world.drive(offset, high)
        assert edges(port, framer) == [("a", True, 0), ("b", False, 0), ("a", False, 0), ("b", True, 0)]
        assert port.levels() == (False, True)
        world.drive(3, True)
        assert port.levels() == (True, True)

    def test_the_kernel_tells_when(self, world: World) -> None:
        port = world.open([GpioLine(0, edges="both")])
        framer = EdgeFramer({0: "a"})
        for number in range(10):
            world.drive(0, number % 2 == 0)
        times = [edge.mono_ns for edge in framer.feed(port.read()) if isinstance(edge, Edge)]
        assert len(times) == 10
        assert times == sorted(times)

    def test_of_pulses_only_the_beginning_is_told(self, world: World) -> None:
        port = world.open([GpioLine(1, edges="rising", active_low=True)])
        framer = EdgeFramer({1: "a"})
        for _ in range(3):
            world.drive(1, True)
            world.drive(1, False)
        assert edges(port, framer) == [("a", True, 0)] * 3

    def test_the_buffer_holds_1024_and_drops_the_oldest(self, world: World) -> None:
        port = world.open([GpioLine(2, edges="both"), GpioLine(4, edges="both")])
        framer = EdgeFramer({2: "a", 4: "b"})
        world.drive(4, True)
        for number in range(1100):
            world.drive(2, number % 2 == 0)
        found = edges(port, framer)
        assert len(found) == 1024
        assert found[0] == ("a", True, 76)
        assert {missed for _, _, missed in found[1:]} == {0}
        world.drive(4, False)
        assert edges(port, framer) == [("b", False, 1)]

    def test_outputs(self, world: World) -> None:
        port = world.open(
            [
                GpioLine(6, output=True, value=True),
                GpioLine(7, output=True, value=True, active_low=True),
                GpioLine(0, output=True, value=False),
            ]
        )
        assert [world.level(offset) for offset in (6, 7, 0)] == [True, False, False]
        assert port.levels() == (True, True, False)
        port.set_level(0, False)
        port.set_level(1, False)
        assert [world.level(offset) for offset in (6, 7, 0)] == [False, True, False]
        assert port.levels() == (False, False, False)
        with pytest.raises(TypeError):
            port.write(b"1")

    def test_an_input_cannot_be_set(self, world: World) -> None:
        port = world.open([GpioLine(1)])
        with pytest.raises(DeviceLost):
            port.set_level(0, True)

    def test_a_chip_that_is_gone(self, world: World) -> None:
        port = world.open([GpioLine(1, edges="both"), GpioLine(2, output=True, value=False)])
        world.remove()
        for use in (port.read, port.levels, lambda: port.set_level(1, True)):
            with pytest.raises(DeviceLost, match="gone"):
                use()

    def test_closed_lines(self, world: World) -> None:
        port = world.open([GpioLine(1, edges="both")])
        port.close()
        port.close()
        for use in (port.read, port.levels):
            with pytest.raises(DeviceLost, match="closed"):
                use()
