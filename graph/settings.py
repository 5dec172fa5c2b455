"""Everything the environment decides, read once."""

import re
from ipaddress import ip_address
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

OFFLINE_MODEL = "fake-llm"


class Settings(BaseSettings):
    """Each field is the variable `AGENT_RUNTIME__<FIELD>`, in the environment or in `.env`."""

    model_config = SettingsConfigDict(
        env_prefix="AGENT_RUNTIME__", env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    internal_api_key: SecretStr = SecretStr("")
    """What `X-Internal-Auth` must hold. Empty: no check, allowed on a loopback host only."""
    host: str = "127.0.0.1"
    """The address the server is bound to."""
    port: int = Field(8001, ge=0, le=65535)
    db_url: str = "sqlite:///data/agent_runtime.db"
    """`sqlite:///relative/path`, `sqlite:////absolute/path`, `postgresql://...`; `+driver` suffixes are ignored."""
    multi_agent_mode: bool = True
    """False: every message goes to the universal agent."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"

    llm_model: str = OFFLINE_MODEL
    """The model's name at the proxy; `fake-llm` is the built-in offline model."""
    llm_proxy_url: str = "http://127.0.0.1:8002"
    """An OpenAI-compatible service, without the `/v1/chat/completions`."""
    llm_api_key: SecretStr = SecretStr("")
    """Sent as `Authorization: Bearer` in place of `X-Internal-Auth`, for services that are not our own proxy."""
    llm_streaming: bool = True
    llm_timeout_seconds: float = Field(360, gt=0)
    """One model call in all, retries included."""
    llm_connect_timeout_seconds: float = Field(10, gt=0)
    llm_idle_timeout_seconds: float = Field(120, gt=0)
    """The longest silence within an answer."""
    llm_retries: int = Field(2, ge=0, le=10)
    """Further attempts after a failed one, as long as nothing of the answer was forwarded."""
    llm_retry_delay_seconds: float = Field(0.5, ge=0)
    """Before the first further attempt; doubled for each one after it."""

    max_model_calls: int = Field(100, ge=1)
    """Model calls between two messages of the user."""
    session_busy_seconds: float = Field(60, ge=0)
    """How long a message waits for the run before it."""
    shutdown_seconds: int = Field(10, ge=0)
    """How long running work may go on after SIGTERM; what is cut off is taken up at the next start."""
    heartbeat_seconds: float = Field(15, gt=0, le=30)
    """The longest silence of a stream."""

    @field_validator("log_level", mode="before")
    @classmethod
    def _in_capitals(cls, level: str) -> str:
        return level.upper()

    @field_validator("db_url")
    @classmethod
    def _of_a_known_kind(cls, url: str) -> str:
        if not re.match(r"(sqlite|postgresql)(\+\w+)?://", url):
            raise ValueError("it must begin with sqlite:/// or postgresql://")
        return url

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if not self.internal_api_key.get_secret_value() and not is_loopback(self.host):
            raise ValueError(
                f"AGENT_RUNTIME__INTERNAL_API_KEY is empty and HOST {self.host} is not loopback: "
                "set a key, or bind to 127.0.0.1."
            )
        return self


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
