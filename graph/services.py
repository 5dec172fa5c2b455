"""What the nodes of one graph share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from langchain_core.language_models import BaseChatModel

from graph.completion.speculation import Ahead
from graph.context.summaries import Memories
from graph.permissions.gatekeeper import Gatekeeper
from graph.routing.cache import Classifications
from graph.settings import Settings
from graph.usage.budgets import Budgets
from graph.usage.meter import Meter
from prompts import AGENTS, Agent, team


@dataclass(frozen=True)
class Services:
    llm: BaseChatModel
    settings: Settings
    team: Mapping[str, Agent]
    """Who can be chosen."""
    gatekeeper: Gatekeeper
    known: Classifications
    memories: Memories
    budgets: Budgets
    meter: Meter
    ahead: Ahead

    @classmethod
    def of(
        cls,
        llm: BaseChatModel,
        settings: Settings,
        gatekeeper: Gatekeeper | None = None,
        known: Classifications | None = None,
    ) -> Self:
        """Raises ValueError for settings that the agents or the policy cannot work with."""
        memories = Memories(llm, settings.context_tokens)
        memories.check(AGENTS)
        return cls(
            llm=llm,
            settings=settings,
            team=team(settings.multi_agent_mode),
            gatekeeper=gatekeeper or Gatekeeper(settings.policy_file),
            known=known or Classifications(settings),
            memories=memories,
            budgets=Budgets(settings),
            meter=Meter(settings),
            ahead=Ahead(),
        )

    async def aclose(self) -> None:
        await self.memories.aclose()
