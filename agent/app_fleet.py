"""The fleet's part in the agent: what takes its documents, if it is to take any."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.app import Agent
    from agent.config import Config
    from agent.fleet import Fleet


def make_fleet(agent: Agent, restart: Callable[[Config], object]) -> Fleet | None:
    """Of an agent; None, and nothing imported for it, where it belongs to no fleet."""
    if not agent.config.fleet.enabled:
        return None
    from agent.fleet import Fleet

    return Fleet(
        agent.manager,
        agent.clock,
        agent.config,
        agent.reloader,
        subscribe=agent.link.subscribe,
        retain=agent.publisher.retain,
        restart=restart,
    )
