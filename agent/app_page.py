"""The status page's part in the agent: what it is made from, if there is to be one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.app import Agent
    from agent.page import Page


def make_page(agent: Agent) -> Page | None:
    """The page of an agent; None, and nothing imported for it, where it has none."""
    if agent.config.page.listen is None:
        return None
    from agent.page import Page

    def unwell() -> str | None:
        if agent.end.begun:
            return "stopping"
        return "starting" if agent.link.stats().state == "stopped" else None

    return Page(
        agent.manager,
        agent.config.page,
        agent.supervisor.devices,
        agent.status.build,
        lambda: agent.outbox.depth,
        unwell=unwell,
    )
