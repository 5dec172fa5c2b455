"""The rules as data: a YAML file, checked whole before it counts."""

from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from policy.commands import CommandClass
from policy.globs import matches_any_case, matches_glob

Decision = Literal["allow", "ask", "deny"]
DEFAULT_POLICY_FILE = Path(__file__).parent / "default.yaml"
MAX_FILE_BYTES = 1_000_000
"""Bytes of a policy file."""
RESERVED_ID_PREFIXES = ("agent.", "path.", "pattern.", "arguments.", "approval.", "grant.", "user.", "unknown")
"""How the ids begin of what is decided without a rule."""

NonEmptyText = Annotated[str, Field(min_length=1, max_length=500)]


class StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PolicyInput(StrictModel):
    """What the rules look at."""

    agent: str
    tool: str
    path: str | None = None
    command: CommandClass | None = None


class Rule(StrictModel):
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,50}$")
    agents: list[NonEmptyText] = Field(["*"], min_length=1)
    tools: list[NonEmptyText] = Field(["*"], min_length=1)
    paths: list[NonEmptyText] | None = Field(None, min_length=1)
    commands: list[Annotated[CommandClass, Field(strict=False)]] | None = Field(None, min_length=1)
    decision: Decision
    reason: NonEmptyText

    def applies_to(self, agent: str, tool: str) -> bool:
        return _matches_any_glob(agent, self.agents) and _matches_any_glob(tool, self.tools)

    def matches_call(self, call: PolicyInput) -> bool:
        same = matches_glob if self.decision == "allow" else matches_any_case
        path, command = call.path, call.command
        return (
            self.applies_to(call.agent, call.tool)
            and (self.paths is None or (path is not None and any(same(path, glob) for glob in self.paths)))
            and (self.commands is None or (command is not None and command in self.commands))
        )


def _matches_any_glob(name: str, globs: Collection[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


class PathWarning(StrictModel):
    paths: list[NonEmptyText] = Field(min_length=1)
    warning: NonEmptyText


class Policy(StrictModel):
    """The rules of a file, and its switches; the file says what they mean."""

    enabled: bool = True
    git_read: Literal["allow", "ask"] = "ask"
    default: Decision = "deny"
    rules: list[Rule]
    warnings: list[PathWarning] = []

    def find_rule(self, call: PolicyInput) -> Rule:
        """The first that matches, else the default."""
        found = next((rule for rule in self.rules if rule.matches_call(call)), self.default_rule)
        return TRUSTED_GIT_RULE if call.command is CommandClass.GIT_READ and self._trusts_git_read(found) else found

    def _trusts_git_read(self, rule: Rule) -> bool:
        """Whether the switch lets a read of git pass that the rule would ask for; what is denied stays so."""
        return self.git_read == "allow" and rule.decision == "ask"

    def find_deciding_rules(self, agent: str, tool: str) -> list[Rule]:
        """All that may decide on a call of the tool, in order, until nothing is left to decide."""
        found: list[Rule] = []
        left = {*CommandClass} if tool == "execute_command" else set()
        for rule in [*self.rules, self.default_rule]:
            if not rule.applies_to(agent, tool) or (rule.commands and not left & {*rule.commands}):
                continue
            found.append(
                TRUSTED_GIT_RULE if rule.commands == [CommandClass.GIT_READ] and self._trusts_git_read(rule) else rule
            )
            if rule.paths is None:
                left -= {*(rule.commands or CommandClass)}
                if not left:
                    break
        return found

    def find_warning(self, path: str) -> str | None:
        return next((w.warning for w in self.warnings if any(matches_any_case(path, glob) for glob in w.paths)), None)

    @cached_property
    def default_rule(self) -> Rule:
        reason = f"No rule of the policy names it, and what is not named is {DECISION_WORDS[self.default]}."
        return Rule(id="unknown", decision=self.default, reason=reason)


DECISION_WORDS = {"allow": "allowed", "ask": "asked for", "deny": "refused"}
TRUSTED_GIT_RULE = Rule(
    id="command.git_read",
    tools=["execute_command"],
    commands=[CommandClass.GIT_READ],
    decision="allow",
    reason="Git only reads here, and the policy trusts the repository's own configuration.",
)


def load_policy(path: Path, tools: Collection[str], agents: Collection[str], path_tools: Collection[str]) -> Policy:
    """`with_path`: the tools that have a path.

    Raises ValueError, naming the file, the line and what is wrong, if the file cannot be used as it is.
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
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"{path}:{line}: it is no YAML: {error.problem}") from None
    except (RecursionError, TypeError, KeyError, IndexError, AttributeError):
        raise ValueError(f"{path}:1: it is nested too deep, or holds what YAML cannot make a value of") from None
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}:{error}") from None
    return policy


def _validate_policy(data: Any, root: yaml.Node) -> Policy:
    try:
        return Policy.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{_find_line(root, first['loc'])}: {where}: {first['msg']}") from None


def _check_names(policy: Policy, root: yaml.Node, tools: Collection[str], agents: Collection[str]) -> None:
    """A rule that names what does not exist would never match, in silence."""
    seen: set[str] = set()
    for number, rule in enumerate(policy.rules):
        for kind, globs, known in (("agents", rule.agents, agents), ("tools", rule.tools, tools)):
            for index, glob in enumerate(globs):
                if not any(fnmatchcase(name, glob) for name in known):
                    line = _find_line(root, ("rules", number, kind, index))
                    raise ValueError(f"{line}: {glob!r} is none of the {kind}: {', '.join(known)}")
        if rule.id in seen or rule.id.startswith(RESERVED_ID_PREFIXES):
            raise ValueError(
                f"{_find_line(root, ('rules', number, 'id'))}: the id {rule.id!r} is taken; choose another"
            )
        seen.add(rule.id)


def _check_conditions(policy: Policy, root: yaml.Node, path_tools: Collection[str]) -> None:
    """So would a rule whose conditions none of its tools can meet."""
    for number, rule in enumerate(policy.rules):
        for kind, asked, able in (("paths", rule.paths, path_tools), ("commands", rule.commands, ["execute_command"])):
            if asked and not any(_matches_any_glob(tool, rule.tools) for tool in able):
                said = f"none of the rule's tools has {kind}; those that have are {', '.join(able)}"
                raise ValueError(f"{_find_line(root, ('rules', number, kind))}: {said}")
        if rule.paths and rule.commands:
            raise ValueError(
                f"{_find_line(root, ('rules', number))}: no call has both a path and a command; make two rules"
            )


def _reject_aliases(text: str) -> None:
    """They can make a small file enormous, or endless."""
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise ValueError(f"{line}: aliases are not taken; write it out")


def _find_line(node: yaml.Node, location: Collection[int | str]) -> int:
    """Of the value at the location, or of what is there of the way to it; from 1."""
    for step in location:
        inner = _get_children(node).get(step)
        if inner is None:
            break
        node = inner
    return int(node.start_mark.line) + 1


def _get_children(node: yaml.Node) -> Mapping[int | str, yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return {key.value: value for key, value in node.value}
    return dict(enumerate(node.value)) if isinstance(node, yaml.SequenceNode) else {}


def _reject_duplicates(node: yaml.Node) -> None:
    """YAML takes the last of two values with one name, in silence."""
    for parent in _iterate_mappings(node):
        names = [key.value for key, _ in parent.value]
        for place, name in enumerate(names):
            if name in names[:place]:
                raise ValueError(f"{parent.value[place][0].start_mark.line + 1}: {name!r} stands there twice")


def _iterate_mappings(node: yaml.Node) -> Iterator[yaml.MappingNode]:
    if isinstance(node, yaml.MappingNode):
        yield node
    for inner in _get_children(node).values():
        yield from _iterate_mappings(inner)
