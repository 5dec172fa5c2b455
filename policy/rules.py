"""Load the rules from a YAML file. The whole file is checked before it takes effect."""

from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from policy.commands import CommandClass
from policy.globs import matches_any_case, matches_glob, may_match
from policy.path_index import PathIndex

Decision = Literal["allow", "ask", "deny"]
DEFAULT_POLICY_FILE = Path(__file__).parent / "default.yaml"
MAX_FILE_BYTES = 1_000_000
"""Bytes of a policy file. A thousand rules need less; a larger file is a mistake. Chosen, not measured."""
RESERVED_ID_PREFIXES = ("agent.", "path.", "pattern.", "arguments.", "approval.", "grant.", "user.", "unknown")
"""The beginnings of ids that stand for decisions without a rule."""

NonEmptyText = Annotated[str, Field(min_length=1, max_length=500)]
"""A name, a glob or a sentence. 500 characters are enough for a reason that people read; chosen, not measured."""


class StrictModel(BaseModel):
    """A frozen model that converts no value and accepts no unknown field."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PolicyInput(StrictModel):
    """The parts of a call that the rules read."""

    agent: str
    tool: str
    path: str | None = None
    command: CommandClass | None = None


class Rule(StrictModel):
    """One rule of the file. `default.yaml` explains its fields."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,50}$")
    """At most 51 characters. The column of the audit has room for 64."""
    agents: list[NonEmptyText] = Field(["*"], min_length=1)
    tools: list[NonEmptyText] = Field(["*"], min_length=1)
    paths: list[NonEmptyText] | None = Field(None, min_length=1)
    commands: list[Annotated[CommandClass, Field(strict=False)]] | None = Field(None, min_length=1)
    decision: Decision
    reason: NonEmptyText

    def applies_to(self, agent: str, tool: str) -> bool:
        """Return whether the rule names the agent and the tool. Its other conditions may still not match."""
        return _matches_any_glob(agent, self.agents) and _matches_any_glob(tool, self.tools)

    def matches_call(self, call: PolicyInput) -> bool:
        """Return whether all conditions of the rule match. Only `allow` compares paths letter by letter."""
        matches = matches_glob if self.decision == "allow" else matches_any_case
        path, command = call.path, call.command
        return (
            self.applies_to(call.agent, call.tool)
            and (self.paths is None or (path is not None and any(matches(path, glob) for glob in self.paths)))
            and (self.commands is None or (command is not None and command in self.commands))
        )


def _matches_any_glob(name: str, globs: Collection[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


class PathWarning(StrictModel):
    """A sentence that the approval of a change of these paths carries."""

    paths: list[NonEmptyText] = Field(min_length=1)
    warning: NonEmptyText


class Policy(StrictModel):
    """The rules and switches of a file. `default.yaml` explains them."""

    enabled: bool = True
    git_read: Literal["allow", "ask"] = "ask"
    default: Decision = "deny"
    rules: list[Rule]
    warnings: list[PathWarning] = []

    def find_rule(self, call: PolicyInput) -> Rule:
        """Return the first rule that matches, else the default rule."""
        rule = next((rule for rule in self.rules if rule.matches_call(call)), self.default_rule)
        return TRUSTED_GIT_RULE if call.command is CommandClass.GIT_READ and self._trusts_git_read(rule) else rule

    def _trusts_git_read(self, rule: Rule) -> bool:
        """Return whether the switch allows a read of git for which the rule requires approval. A denial stays."""
        return self.git_read == "allow" and rule.decision == "ask"

    def find_deciding_rules(self, agent: str, tool: str) -> list[Rule]:
        """Return the rules that may decide on a call of the tool, in order.

        The list ends with the rule that decides on all the calls that remain.
        """
        rules: list[Rule] = []
        undecided = {*CommandClass} if tool == "execute_command" else set()
        for rule in [*self.rules, self.default_rule]:
            if not rule.applies_to(agent, tool) or (rule.commands and not undecided & {*rule.commands}):
                continue
            is_trusted = rule.commands == [CommandClass.GIT_READ] and self._trusts_git_read(rule)
            rules.append(TRUSTED_GIT_RULE if is_trusted else rule)
            if rule.paths is None:
                undecided -= {*(rule.commands or CommandClass)}
                if not undecided:
                    break
        return rules

    def find_warning(self, path: str) -> str | None:
        """Return the first warning about the path, in any case and form of Unicode."""
        return next((w.warning for w in self.warnings if any(may_match(path, g) for g in w.paths)), None)

    @cached_property
    def warning_index(self) -> PathIndex:
        return PathIndex((glob, each.warning) for each in self.warnings for glob in each.paths)

    @cached_property
    def rule_index(self) -> PathIndex:
        return PathIndex((glob, r.id) for r in self.rules if r.decision != "allow" for glob in r.paths or ())

    @cached_property
    def default_rule(self) -> Rule:
        """Return the rule for calls that no rule of the file matches."""
        reason = f"No rule of the policy matches this call. Such calls {DEFAULT_CONSEQUENCES[self.default]}."
        return Rule(id="unknown", decision=self.default, reason=reason)


DEFAULT_CONSEQUENCES = {"allow": "are allowed", "ask": "need the user's approval", "deny": "are refused"}
TRUSTED_GIT_RULE = Rule(
    id="command.git_read",
    tools=["execute_command"],
    commands=[CommandClass.GIT_READ],
    decision="allow",
    reason="Git only reads here, and the policy trusts the repository's own configuration.",
)


def load_policy(path: Path, tools: Collection[str], agents: Collection[str], path_tools: Collection[str]) -> Policy:
    """Load the policy of a file. `path_tools` are the tools that have a path.

    Raises ValueError, with the file, the line and the error, if the file cannot be used as it is.
    """
    try:
        data = path.read_bytes()
        if len(data) > MAX_FILE_BYTES:
            raise ValueError("1: it is larger than 1 MB")
        text = data.decode()
        _reject_aliases(text)
        root = yaml.compose(text, yaml.SafeLoader)
        if root is None:
            raise ValueError("1: it is empty")
        _reject_duplicates(root)
        policy = _validate_policy(yaml.safe_load(text), root)
        _check_names(policy, root, tools, agents)
        _check_conditions(policy, root, path_tools)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: it cannot be read: {error}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise ValueError(f"{path}:{mark.line + 1 if mark else 1}: it is not valid YAML: {error.problem}") from None
    except (RecursionError, TypeError, KeyError, IndexError, AttributeError):
        raise ValueError(f"{path}:1: it is nested too deeply, or holds a value that YAML cannot build") from None
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}:{error}") from None
    return policy


def _validate_policy(data: Any, root: yaml.Node) -> Policy:
    try:
        return Policy.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise ValueError(f"{_find_line(root, first['loc'])}: {field}: {first['msg']}") from None


def _check_names(policy: Policy, root: yaml.Node, tools: Collection[str], agents: Collection[str]) -> None:
    """Refuse a rule that names an agent or a tool that does not exist: it would never match. Raises ValueError."""
    ids: set[str] = set()
    for number, rule in enumerate(policy.rules):
        for kind, globs, names in (("agents", rule.agents, agents), ("tools", rule.tools, tools)):
            for index, glob in enumerate(globs):
                if not any(fnmatchcase(name, glob) for name in names):
                    line = _find_line(root, ("rules", number, kind, index))
                    raise ValueError(f"{line}: {glob!r} is not one of the {kind}: {', '.join(names)}")
        if rule.id in ids or rule.id.startswith(RESERVED_ID_PREFIXES):
            raise ValueError(
                f"{_find_line(root, ('rules', number, 'id'))}: the id {rule.id!r} is taken; choose another"
            )
        ids.add(rule.id)


def _check_conditions(policy: Policy, root: yaml.Node, path_tools: Collection[str]) -> None:
    """Refuse a rule with conditions that none of its tools can meet: it would never match. Raises ValueError."""
    for number, rule in enumerate(policy.rules):
        conditions = (("paths", rule.paths, path_tools), ("commands", rule.commands, ["execute_command"]))
        for kind, condition, tools in conditions:
            if condition and not any(_matches_any_glob(tool, rule.tools) for tool in tools):
                error = f"none of the rule's tools has {kind}; these tools have: {', '.join(tools)}"
                raise ValueError(f"{_find_line(root, ('rules', number, kind))}: {error}")
        if rule.paths and rule.commands:
            raise ValueError(
                f"{_find_line(root, ('rules', number))}: no call has both a path and a command; make two rules"
            )


def _reject_aliases(text: str) -> None:
    """Refuse aliases, which can make a small file enormous or endless. Raises ValueError."""
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise ValueError(f"{line}: aliases are not allowed; write the value out")


def _find_line(node: yaml.Node, location: Collection[int | str]) -> int:
    """Return the line, from 1, of the value at the location, or of the nearest node above it that exists."""
    for step in location:
        if (child := _get_children(node).get(step)) is None:
            break
        node = child
    return int(node.start_mark.line) + 1


def _get_children(node: yaml.Node) -> Mapping[int | str, yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return {key.value: value for key, value in node.value}
    return dict(enumerate(node.value)) if isinstance(node, yaml.SequenceNode) else {}


def _reject_duplicates(node: yaml.Node) -> None:
    """Refuse a name that occurs twice: YAML would silently use its last value. Raises ValueError."""
    for parent in _iterate_mappings(node):
        names = [key.value for key, _ in parent.value]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise ValueError(f"{parent.value[index][0].start_mark.line + 1}: {name!r} occurs twice")


def _iterate_mappings(node: yaml.Node) -> Iterator[yaml.MappingNode]:
    if isinstance(node, yaml.MappingNode):
        yield node
    for child in _get_children(node).values():
        yield from _iterate_mappings(child)
