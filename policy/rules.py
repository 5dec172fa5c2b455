"""The rules as data: a YAML file, checked whole before it counts."""

from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from policy.commands import CommandClass
from policy.globs import matches, matches_any_case

Decision = Literal["allow", "ask", "deny"]
DEFAULT = Path(__file__).parent / "default.yaml"
LARGEST = 1_000_000
"""Bytes of a policy file."""
OWN_IDS = ("agent.", "path.", "pattern.", "arguments.", "approval.", "grant.", "user.", "unknown")
"""How the ids begin of what is decided without a rule."""

Text = Annotated[str, Field(min_length=1, max_length=500)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Call(Strict):
    """What the rules look at."""

    agent: str
    tool: str
    path: str | None = None
    command: CommandClass | None = None


class Rule(Strict):
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,50}$")
    agents: list[Text] = Field(["*"], min_length=1)
    tools: list[Text] = Field(["*"], min_length=1)
    paths: list[Text] | None = Field(None, min_length=1)
    commands: list[Annotated[CommandClass, Field(strict=False)]] | None = Field(None, min_length=1)
    decision: Decision
    reason: Text

    def concerns(self, agent: str, tool: str) -> bool:
        return _named(agent, self.agents) and _named(tool, self.tools)

    def matches(self, call: Call) -> bool:
        same = matches if self.decision == "allow" else matches_any_case
        path, command = call.path, call.command
        return (
            self.concerns(call.agent, call.tool)
            and (self.paths is None or (path is not None and any(same(path, glob) for glob in self.paths)))
            and (self.commands is None or (command is not None and command in self.commands))
        )


def _named(name: str, globs: Collection[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


class Warned(Strict):
    paths: list[Text] = Field(min_length=1)
    warning: Text


class Policy(Strict):
    """The rules of a file, and its switches; the file says what they mean."""

    enabled: bool = True
    git_read: Literal["allow", "ask"] = "ask"
    default: Decision = "deny"
    rules: list[Rule]
    warnings: list[Warned] = []

    def rule(self, call: Call) -> Rule:
        """The first that matches, else the default."""
        found = next((rule for rule in self.rules if rule.matches(call)), self.last)
        return TRUSTED_GIT if call.command is CommandClass.GIT_READ and self._trusts(found) else found

    def _trusts(self, rule: Rule) -> bool:
        """Whether the switch lets a read of git pass that the rule would ask for; what is denied stays so."""
        return self.git_read == "allow" and rule.decision == "ask"

    def rules_for(self, agent: str, tool: str) -> list[Rule]:
        """All that may decide on a call of the tool, in order, until nothing is left to decide."""
        found: list[Rule] = []
        left = {*CommandClass} if tool == "execute_command" else set()
        for rule in [*self.rules, self.last]:
            if not rule.concerns(agent, tool) or (rule.commands and not left & {*rule.commands}):
                continue
            found.append(TRUSTED_GIT if rule.commands == [CommandClass.GIT_READ] and self._trusts(rule) else rule)
            if rule.paths is None:
                left -= {*(rule.commands or CommandClass)}
                if not left:
                    break
        return found

    def warning(self, path: str) -> str | None:
        return next((w.warning for w in self.warnings if any(matches_any_case(path, glob) for glob in w.paths)), None)

    @cached_property
    def last(self) -> Rule:
        reason = f"No rule of the policy names it, and what is not named is {SAID[self.default]}."
        return Rule(id="unknown", decision=self.default, reason=reason)


SAID = {"allow": "allowed", "ask": "asked for", "deny": "refused"}
TRUSTED_GIT = Rule(
    id="command.git_read",
    tools=["execute_command"],
    commands=[CommandClass.GIT_READ],
    decision="allow",
    reason="Git only reads here, and the policy trusts the repository's own configuration.",
)


def load(path: Path, tools: Collection[str], agents: Collection[str], with_path: Collection[str]) -> Policy:
    """`with_path`: the tools that have a path.

    Raises ValueError, naming the file, the line and what is wrong, if the file cannot be used as it is.
    """
    try:
        data = path.read_bytes()
        if len(data) > LARGEST:
            raise ValueError("1: it is larger than 1 MB")
        text = data.decode()
        _no_aliases(text)
        root = yaml.compose(text, yaml.SafeLoader)
        if root is None:
            raise ValueError("1: it is empty")
        _no_duplicates(root)
        policy = _validated(yaml.safe_load(text), root)
        _check_names(policy, root, tools, agents)
        _check_sense(policy, root, with_path)
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


def _validated(data: Any, root: yaml.Node) -> Policy:
    try:
        return Policy.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{_line(root, first['loc'])}: {where}: {first['msg']}") from None


def _check_names(policy: Policy, root: yaml.Node, tools: Collection[str], agents: Collection[str]) -> None:
    """A rule that names what does not exist would never match, in silence."""
    seen: set[str] = set()
    for number, rule in enumerate(policy.rules):
        for kind, globs, known in (("agents", rule.agents, agents), ("tools", rule.tools, tools)):
            for index, glob in enumerate(globs):
                if not any(fnmatchcase(name, glob) for name in known):
                    line = _line(root, ("rules", number, kind, index))
                    raise ValueError(f"{line}: {glob!r} is none of the {kind}: {', '.join(known)}")
        if rule.id in seen or rule.id.startswith(OWN_IDS):
            raise ValueError(f"{_line(root, ('rules', number, 'id'))}: the id {rule.id!r} is taken; choose another")
        seen.add(rule.id)


def _check_sense(policy: Policy, root: yaml.Node, with_path: Collection[str]) -> None:
    """So would a rule whose conditions none of its tools can meet."""
    for number, rule in enumerate(policy.rules):
        for kind, asked, able in (("paths", rule.paths, with_path), ("commands", rule.commands, ["execute_command"])):
            if asked and not any(_named(tool, rule.tools) for tool in able):
                said = f"none of the rule's tools has {kind}; those that have are {', '.join(able)}"
                raise ValueError(f"{_line(root, ('rules', number, kind))}: {said}")
        if rule.paths and rule.commands:
            raise ValueError(f"{_line(root, ('rules', number))}: no call has both a path and a command; make two rules")


def _no_aliases(text: str) -> None:
    """They can make a small file enormous, or endless."""
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise ValueError(f"{line}: aliases are not taken; write it out")


def _line(node: yaml.Node, location: Collection[int | str]) -> int:
    """Of the value at the location, or of what is there of the way to it; from 1."""
    for step in location:
        inner = _inner(node).get(step)
        if inner is None:
            break
        node = inner
    return int(node.start_mark.line) + 1


def _inner(node: yaml.Node) -> Mapping[int | str, yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return {key.value: value for key, value in node.value}
    return dict(enumerate(node.value)) if isinstance(node, yaml.SequenceNode) else {}


def _no_duplicates(node: yaml.Node) -> None:
    """YAML takes the last of two values with one name, in silence."""
    for parent in _mappings(node):
        names = [key.value for key, _ in parent.value]
        for place, name in enumerate(names):
            if name in names[:place]:
                raise ValueError(f"{parent.value[place][0].start_mark.line + 1}: {name!r} stands there twice")


def _mappings(node: yaml.Node) -> Iterator[yaml.MappingNode]:
    if isinstance(node, yaml.MappingNode):
        yield node
    for inner in _inner(node).values():
        yield from _mappings(inner)
