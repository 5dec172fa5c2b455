"""The services that the nodes of one graph share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from langchain_core.language_models import BaseChatModel

from graph.completion.speculation import Speculator
from graph.context.model_limits import ModelLimits
from graph.context.summaries import Summarizer
from graph.permissions.gatekeeper import Gatekeeper
from graph.routing.cache import RoutingCache
from graph.routing.ngrams import load_default_model
from graph.settings import Settings
from graph.usage.budgets import Budgets
from graph.usage.meter import Meter
from prompts import AGENTS, Agent, select_team


@dataclass(frozen=True)
class Services:
    llm: BaseChatModel
    settings: Settings
    team: Mapping[str, Agent]
    """The specialists that a message can go to, by name."""
    gatekeeper: Gatekeeper
    routing_cache: RoutingCache
    summarizer: Summarizer
    budgets: Budgets
    meter: Meter
    speculator: Speculator

    @classmethod
    def from_settings(
        cls,
        llm: BaseChatModel,
        settings: Settings,
        gatekeeper: Gatekeeper | None = None,
        routing_cache: RoutingCache | None = None,
    ) -> Self:
        """Open nothing, build everything. Raises ValueError for settings that do not fit the agents or the policy."""
        limits = getattr(llm, "limits", None)
        summarizer = Summarizer(
            llm,
            settings.context_tokens,
            settings.llm_model,
            limits if isinstance(limits, ModelLimits) else ModelLimits(),  # of a model that does not learn
        )
        summarizer.validate_agents(AGENTS)
        load_default_model()
        return cls(
            llm=llm,
            settings=settings,
            team=select_team(settings.multi_agent_mode),
            gatekeeper=gatekeeper or Gatekeeper(settings.policy_file),
            routing_cache=routing_cache or RoutingCache(settings),
            summarizer=summarizer,
            budgets=Budgets(settings),
            meter=Meter(settings),
            speculator=Speculator(),
        )

    async def aclose(self) -> None:
        await self.summarizer.aclose()
