"""Accept settings by the names that they had before: in the environment, in `.env` and as keyword arguments."""

import logging
from collections.abc import Mapping
from typing import Any, Self

from pydantic import ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource

log = logging.getLogger("agent_runtime.settings")

FORMER_NAMES = {
    "max_model_calls": "max_turn_model_calls",
    "max_tool_calls": "max_turn_tool_calls",
    "turn_tokens": "max_turn_tokens",
    "turn_money": "max_turn_cost",
    "session_tokens": "max_session_tokens",
    "session_money": "max_session_cost",
    "session_busy": "multitask_strategy",
    "session_queue": "max_queued_messages",
    "session_busy_seconds": "queue_timeout_seconds",
}
"""The field's name by its former name."""


class AliasedSettings(BaseSettings):
    """Settings that accept former names. A fault names the variable that the user wrote."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        environment = (env_settings, FormerNames(env_settings))
        file = (dotenv_settings, FormerNames(dotenv_settings))
        return init_settings, *environment, *file, file_secret_settings

    @model_validator(mode="wrap")
    @classmethod
    def _accept_former_names(cls, data: dict[str, Any], validate: ModelWrapValidatorHandler[Self]) -> Self:
        """Use a value by its former name unless the present name has one too. The former name alone is no warning."""
        prefix = cls.model_config["env_prefix"]
        used: dict[str, str] = {}
        for former, name in FORMER_NAMES.items():
            if former in data and name in data:
                log.warning("%s is ignored, because %s is set too.", prefix + former.upper(), prefix + name.upper())
            elif former in data:
                used[name] = former
        try:
            return validate({**data, **{name: data[former] for name, former in used.items()}})
        except ValidationError as error:
            raise _restore_names(error, used) from None


class FormerNames(PydanticBaseSettingsSource):
    """The variables of a source that have former names."""

    def __init__(self, source: PydanticBaseSettingsSource) -> None:
        super().__init__(source.settings_cls)
        self._variables = source.env_vars if isinstance(source, EnvSettingsSource) else {}

    def get_field_value(self, field: FieldInfo | None, field_name: str) -> tuple[Any, str, bool]:
        return self._variables.get(f"{self.config['env_prefix']}{field_name}".lower()), field_name, False

    def __call__(self) -> dict[str, Any]:
        values = {former: self.get_field_value(None, former)[0] for former in FORMER_NAMES}
        return {former: value for former, value in values.items() if value is not None}


def _restore_names(error: ValidationError, used: Mapping[str, str]) -> ValidationError:
    """Return the same faults, each at the name that the user wrote."""
    faults = [
        InitErrorDetails(
            type=fault["type"],
            loc=(*[used.get(str(part), part) for part in fault["loc"][:1]], *fault["loc"][1:]),
            input=fault["input"],
            ctx=fault.get("ctx", {}),
        )
        for fault in error.errors(include_url=False)
    ]
    return ValidationError.from_exception_data(error.title, faults, hide_input=True)
