"""Everything the environment decides, read once."""

import re
from decimal import Decimal
from ipaddress import ip_address
from typing import Literal, Self

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from graph.prices import Price

OFFLINE_MODEL = "fake-llm"


class Settings(BaseSettings):
    """Each field is the variable `AGENT_RUNTIME__<FIELD>`, in the environment or in `.env`."""

    model_config = SettingsConfigDict(
        env_prefix="AGENT_RUNTIME__", env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    internal_api_key: SecretStr = SecretStr("")
    """What `X-Internal-Auth` must hold: 16 characters or more, and no placeholder. `api/keys.py` has the rule."""
    internal_api_key_previous: SecretStr = SecretStr("")
    """Accepted as well, while clients change to a new key; empty: there is none."""
    dev: bool = False
    """On a loopback host only: any key will do, also none."""
    host: str = "127.0.0.1"
    """The address the server is bound to."""
    port: int = Field(8001, ge=0, le=65535)
    db_url: str = Field("sqlite:///data/agent_runtime.db", repr=False)
    """`sqlite:///relative/path`, `sqlite:////absolute/path`, `postgresql://...`; `+driver` suffixes are ignored."""
    db_pool_size: int = Field(10, ge=2)
    """Connections to Postgres, of each process and each of its two pools: the tables', the threads'."""
    db_statement_timeout_seconds: float = Field(30, gt=0)
    """How long Postgres may work on one statement."""
    db_lock_timeout_seconds: float = Field(10, gt=0)
    """How long one may wait for a row that another transaction holds."""
    workers: int = Field(1, ge=1)
    """Processes that serve the port; more than one needs Postgres."""
    multi_agent_mode: bool = True
    """False: every message goes to the universal agent."""
    routing_cache_size: int = Field(1_000, ge=0)
    """How many of the model's choices of an agent a process remembers; 0: none."""
    routing_cache_seconds: float = Field(3_600, ge=0)
    """How long it does; 0: not at all."""
    speculative_routing: bool = False
    """The specialist that a request's words speak for begins while the model still chooses; a wrong guess is dropped,
    and its tokens are paid for."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"

    llm_model: str = OFFLINE_MODEL
    """The model's name at the proxy; `fake-llm` is the built-in offline model."""
    llm_proxy_url: str = "http://127.0.0.1:8002"
    """An OpenAI-compatible service, without the `/v1/chat/completions`."""
    llm_api_key: SecretStr = SecretStr("")
    """Sent as `Authorization: Bearer` in place of `X-Internal-Auth`, for services that are not our own proxy."""
    llm_streaming: bool = True
    llm_titles: bool = True
    """After its first run a session gets a better title from the model: one short call. The offline model has none."""
    llm_timeout_seconds: float = Field(360, gt=0)
    """One model call in all, retries included."""
    llm_connect_timeout_seconds: float = Field(10, gt=0)
    llm_first_byte_timeout_seconds: float = Field(120, gt=0)
    """From the request to the first byte of its answer."""
    llm_idle_timeout_seconds: float = Field(120, gt=0)
    """The longest silence within an answer."""
    llm_retries: int = Field(2, ge=0, le=10)
    """Further attempts after a failed one, as long as nothing of the answer was forwarded."""
    llm_retry_delay_seconds: float = Field(0.5, ge=0)
    """Before the first further attempt; doubled for each one after it."""
    llm_fallback_model: str = ""
    """Asked when a model is down and has said nothing yet; empty: there is none."""
    llm_breaker_failures: int = Field(5, ge=0)
    """After so many failed attempts in a row a model is left alone; 0: never."""
    llm_breaker_seconds: float = Field(30, gt=0)
    """For how long; then one attempt finds out whether it is back."""
    context_tokens: int = Field(100_000, ge=4_000)
    """What a model is sent at most: prompt, tools, summary, messages; as estimated. Leave room for its answer."""

    graph_url: str = ""
    """A LangGraph server that runs our `langgraph.json`: this service is the edge before it. Empty: it runs here."""
    graph_api_key: SecretStr = SecretStr("")
    """Sent to that server as `x-api-key`."""
    graph_name: str = "agent"
    """As in that server's `langgraph.json`."""
    graph_connect_timeout_seconds: float = Field(5, gt=0)

    policy_file: str = ""
    """The rules of the gate, read anew at SIGHUP; empty: `policy/default.yaml`, which says how they are written."""
    approval_timeout_seconds: float = Field(0, ge=0)
    """How long an approval may stay open; 0: for ever."""
    max_model_calls: int = Field(100, ge=1)
    """Answers of specialists between two messages of the user."""
    max_tool_calls: int = Field(200, ge=1)
    """Tool calls between two messages of the user."""
    turn_tokens: int = Field(0, ge=0)
    """Tokens of all model calls between two messages of the user; 0: any number."""
    turn_money: Decimal = Field(Decimal(0), ge=0, le=10**12, decimal_places=6, allow_inf_nan=False)
    """What they may cost; 0: any amount. A model without a price counts as the dearest that has one."""
    session_tokens: int = Field(0, ge=0)
    """Tokens of all model calls of a session; 0: any number."""
    session_money: Decimal = Field(Decimal(0), ge=0, le=10**12, decimal_places=6, allow_inf_nan=False)
    """What they may cost; 0: any amount."""
    budget_warning: float = Field(0.8, gt=0, le=1)
    """At which part of such a limit, model calls included, the user is asked whether to go on; 1: never."""
    prices: dict[str, Price] = {}
    """Of a million tokens, by model or glob: `{"some-model*": {"prompt": 2.5, "cached": 0.25, "completion": 10}}`."""
    currency: str = Field("USD", min_length=1, max_length=16)
    """What the prices are in; a label, nothing is converted."""
    max_run_minutes: float = Field(60, gt=0)
    """How long one run may take; it is stopped at its model call."""
    session_busy_seconds: float = Field(60, ge=0)
    """How long a message waits for the run before it."""
    session_busy: Literal["enqueue", "reject", "interrupt"] = "enqueue"
    """What a message does that finds its session at work, if it does not say so itself."""
    session_queue: int = Field(20, ge=0)
    """How many messages of one session may wait."""
    lease_seconds: float = Field(15, ge=0.5)
    """How long a replica that gives no sign of life keeps its sessions."""
    tool_timeout_seconds: float = Field(0, ge=0)
    """How long the IDE may work on a call before its model is told that no answer came; 0: for ever."""
    session_ttl_hours: float = Field(0, ge=0)
    """Sessions without activity for longer are erased, unless calls of them are open; 0: never."""
    prune_after_runs: int = Field(200, ge=0)
    """After how many runs, and no fewer than a tenth of its messages, a session's old checkpoints go; 0: never."""
    shutdown_seconds: int = Field(25, ge=0)
    """How long running work may go on after SIGTERM; what is left is handed to another replica, or the next start."""
    heartbeat_seconds: float = Field(15, gt=0, le=30)
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

    @model_validator(mode="after")
    def _require_prices(self) -> Self:
        if (self.turn_money or self.session_money) and not self.prices:
            raise ValueError("TURN_MONEY and SESSION_MONEY need PRICES: without them nothing has a price")
        return self


def _is_readable(url: str) -> bool:
    """Judged here, because whoever reads it later repeats pieces of the password in its error."""
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
