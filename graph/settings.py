"""The settings of the service, read once from the environment and from `.env`."""

import re
from decimal import Decimal
from ipaddress import ip_address
from typing import Literal

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from graph.prices import Price
from graph.setting_aliases import AliasedSettings

OFFLINE_MODEL = "fake-llm"
DEFAULT_CURRENCY = "USD"
"""The currency of the default prices."""
MAX_COST = 10**12
"""Far above any real limit, so that sums of money stay within the 28 digits of a Decimal."""


class Settings(AliasedSettings):
    """Each field is the variable `AGENT_RUNTIME__<FIELD>`. A default without a reason was chosen, not measured."""

    model_config = SettingsConfigDict(
        env_prefix="AGENT_RUNTIME__", env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    internal_api_key: SecretStr = SecretStr("")
    """The value that `X-Internal-Auth` must have: 16 characters or more, no placeholder. See `api/keys.py`."""
    internal_api_key_previous: SecretStr = SecretStr("")
    """A second key that is accepted while clients change to a new one. Empty: there is none."""
    dev: bool = False
    """True: any key is accepted, or none. Allowed on a loopback host only."""
    host: str = "127.0.0.1"
    """The address that the server binds to."""
    port: int = Field(8001, ge=0, le=65535)  # the port that the Gateway calls
    db_url: str = Field("sqlite:///data/agent_runtime.db", repr=False)
    """`sqlite:///relative/path`, `sqlite:////absolute/path`, `postgresql://...`. A `+driver` suffix is ignored."""
    db_pool_size: int = Field(10, ge=2)  # four processes fit in the 100 connections that Postgres allows by default
    """Connections to Postgres for each process and each of its two pools: for the tables and for the threads."""
    db_statement_timeout_seconds: float = Field(30, gt=0)  # a statement takes milliseconds, so 30 s mean a fault
    """The longest that Postgres works on one statement."""
    db_lock_timeout_seconds: float = Field(10, gt=0)  # a holder that is idle is ended after half of it
    """The longest that a statement waits for a row which another transaction holds."""
    workers: int = Field(1, ge=1)
    """Processes that serve the port. More than one needs Postgres."""
    multi_agent_mode: bool = True
    """False: every message goes to the universal agent."""
    routing_cache_size: int = Field(1_000, ge=0)  # bounds the memory
    """Choices of an agent that a process remembers. 0: none."""
    routing_cache_seconds: float = Field(3_600, ge=0)  # a wrong choice is forgotten within the hour
    """The longest that a choice is remembered. 0: not at all."""
    speculative_routing: bool = False
    """True: the agent that the words leave no doubt about starts while the model still classifies."""
    routing_skip_model: bool = False
    """True: the model does not classify a request whose words leave no doubt about its agent."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"

    llm_model: str = OFFLINE_MODEL
    """The model's name at the proxy. `fake-llm` is the built-in offline model."""
    llm_proxy_url: str = "http://127.0.0.1:8002"
    """The address of an OpenAI-compatible service, in any form: see `graph/llm/endpoint.py`."""
    llm_api_key: SecretStr = SecretStr("")
    """Sent as `Authorization: Bearer`, to Azure as `api-key`, in place of `X-Internal-Auth`, for services that are
    not our own proxy."""
    llm_streaming: bool = True
    llm_titles: bool = True
    llm_thoughts: Literal["drop", "show"] = "drop"
    """show: thoughts that a model writes into its text are a message of their own. They are never part of the answer.
    """
    """True: after its first run a session gets a better title, by one short model call. Not with the offline model."""
    llm_timeout_seconds: float = Field(360, gt=0)  # of the wire contract
    """The longest that one model call takes, retries and fallback included."""
    llm_connect_timeout_seconds: float = Field(10, gt=0)
    llm_first_byte_timeout_seconds: float = Field(120, gt=0)  # three attempts fit in the 360 s
    """The longest time from a request to the first byte of its answer."""
    llm_idle_timeout_seconds: float = Field(120, gt=0)
    """The longest silence within an answer."""
    llm_retries: int = Field(2, ge=0, le=10)  # the user waits for them
    """Further attempts after a failed one, as long as nothing of the answer was forwarded."""
    llm_retry_delay_seconds: float = Field(0.5, ge=0)
    """The delay before the first further attempt. It doubles for each one after it."""
    llm_fallback_model: str = ""
    """The model that answers if another one cannot and has sent nothing yet. Empty: there is none."""
    llm_breaker_failures: int = Field(5, ge=0)  # more than the three attempts of one call
    """Failed attempts in a row after which a model gets no requests for a time. 0: never."""
    llm_breaker_seconds: float = Field(30, gt=0)
    """That time. After it one attempt finds out whether the model is back."""
    context_tokens: int = Field(100_000, ge=4_000)  # four fifths of a window of 128k; the longest prompt takes 2,700
    """The most that a model is sent: prompt, tools, summary, messages. Leave room for its answer."""

    graph_url: str = ""
    """The address of a LangGraph server that runs our `langgraph.json`. Empty: the graph runs in this process."""
    graph_api_key: SecretStr = SecretStr("")
    """Sent to that server as `x-api-key`."""
    graph_name: str = "agent"
    """The graph's name in that server's `langgraph.json`."""
    graph_connect_timeout_seconds: float = Field(5, gt=0)

    policy_file: str = ""
    """The rules of the gate, read again at SIGHUP. Empty: `policy/default.yaml`, which explains the format."""
    audit_reads: bool = False
    """True: the audit of a session also lists, as `passes`, its calls that passed unasked and change nothing."""
    approval_timeout_seconds: float = Field(0, ge=0)
    """The longest that an approval stays open. 0: there is no limit."""
    prices: dict[str, Price] = Field({})
    """Prices of a million tokens, by model or glob: `{"gpt*": {"prompt": 2.5, "cached": 0.25, "completion": 10}}`."""
    currency: str = Field(DEFAULT_CURRENCY, min_length=1, max_length=16)
    """The currency of the prices. It is a label, nothing is converted."""
    default_prices: bool = True
    """True: a well-known model without a price in `PRICES` has the list price of its service, in USD."""
    max_turn_model_calls: int = Field(100, ge=1)  # stops an agent that never ends by itself
    """Answers of specialists between two messages of the user."""
    max_turn_tool_calls: int = Field(200, ge=1)  # two for each model call, for parallel tools
    """Tool calls between two messages of the user."""
    max_turn_tokens: int = Field(0, ge=0)
    """Tokens of all model calls between two messages of the user. 0: there is no limit."""
    max_turn_cost: Decimal = Field(Decimal(0), ge=0, le=MAX_COST, decimal_places=6, allow_inf_nan=False)
    """The cost of those calls. 0: there is no limit. A model without a price counts as the most expensive one."""
    max_session_tokens: int = Field(0, ge=0)
    """Tokens of all model calls of a session. 0: there is no limit."""
    max_session_cost: Decimal = Field(Decimal(0), ge=0, le=MAX_COST, decimal_places=6, allow_inf_nan=False)
    """The cost of those calls. 0: there is no limit."""
    budget_warning: float = Field(0.8, gt=0, le=1)  # leaves a fifth to finish the work in hand
    """The share of such a limit, model calls included, at which the user is asked whether to go on. 1: never."""
    max_run_minutes: float = Field(60, gt=0)  # ten of the longest model calls
    """The longest that one run takes. It is stopped at its model call."""
    multitask_strategy: Literal["enqueue", "reject", "interrupt"] = "enqueue"
    """The effect of a message on a session that is busy, unless the message names another one."""
    max_queued_messages: int = Field(20, ge=0)  # a person sends fewer
    """Messages of one session that may wait."""
    queue_timeout_seconds: float = Field(60, ge=0)  # of the wire contract: `session_busy` comes after 60 s
    """The longest that a message waits for the run before it."""
    lease_seconds: float = Field(15, ge=0.5)  # renewed three times in it, so that one may fail
    """The time after which a replica that does not renew its leases loses its sessions."""
    tool_timeout_seconds: float = Field(0, ge=0)
    """The longest that the IDE works on a call before the model reads that no answer came. 0: there is no limit."""
    session_ttl_hours: float = Field(0, ge=0)
    """The time without activity after which a session is erased, unless it has open calls. 0: never."""
    prune_after_runs: int = Field(200, ge=0)  # each time the whole thread is rewritten
    """Runs, at least a tenth of the messages, after which a session's old checkpoints are deleted. 0: never."""
    shutdown_seconds: int = Field(25, ge=0)  # Kubernetes kills 30 s after SIGTERM
    """The time that runs have after SIGTERM. The rest is handed to another replica, or to the next start."""
    heartbeat_seconds: float = Field(15, gt=0, le=30)  # of the wire contract; the Gateway gives up after 60 s
    """The longest silence of a stream."""

    @field_validator("log_level", mode="before")
    @classmethod
    def _uppercase_level(cls, level: str) -> str:
        return level.upper()

    @field_validator("internal_api_key", "internal_api_key_previous", "llm_api_key", "graph_api_key")
    @classmethod
    def _strip_key(cls, key: SecretStr) -> SecretStr:
        return SecretStr(key.get_secret_value().strip())

    @field_validator("graph_url")
    @classmethod
    def _require_http_url(cls, url: str) -> str:
        if url and not re.match(r"https?://[^/]", url):
            raise ValueError("it must begin with http:// or https://")
        return url

    @field_validator("db_url")
    @classmethod
    def _validate_database_url(cls, url: str) -> str:
        kind = re.match(r"(sqlite|postgresql)(\+\w+)?://", url)
        if not kind:
            raise ValueError("it must begin with sqlite:/// or postgresql://")
        if kind[1] == "postgresql" and not _is_readable(f"postgresql://{url[kind.end() :]}"):
            raise ValueError("it is no address of a Postgres; special characters in its password have to be %-encoded")
        return url

    @field_validator("workers")
    @classmethod
    def _validate_worker_count(cls, workers: int, info: ValidationInfo) -> int:
        if workers > 1 and info.data.get("db_url", "").startswith("sqlite"):
            raise ValueError(
                f"an SQLite file takes one process, not {workers}; give it a Postgres as AGENT_RUNTIME__DB_URL"
            )
        return workers

    @field_validator("max_turn_cost", "max_session_cost")
    @classmethod
    def _require_prices(cls, limit: Decimal, info: ValidationInfo) -> Decimal:
        known = info.data
        has_defaults = known.get("default_prices") and known.get("currency") == DEFAULT_CURRENCY
        may_have_price = has_defaults and known.get("llm_model") != OFFLINE_MODEL
        if limit and not known.get("prices", True) and not may_have_price:
            raise ValueError("a limit of money needs AGENT_RUNTIME__PRICES: without them nothing has a cost")
        return limit


def _is_readable(url: str) -> bool:
    """Return whether SQLAlchemy and psycopg can read the URL. Their own errors would repeat parts of the password."""
    try:
        make_url(url), conninfo_to_dict(url)
        return url.count("@") <= 1
    except (ValueError, ArgumentError, ProgrammingError):
        return False


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
