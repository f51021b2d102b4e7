"""Files of settings in YAML."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rubric_rl.common.errors import UserError
from rubric_rl.common.plain_text import one_line

_MOST_NODES = 100_000  # of a file whose aliases are written out


class StrictLoader(yaml.SafeLoader):
    """YAML that says nothing twice, and nothing about itself: which was meant, nobody knows.

    Aliases of aliases, by which a few lines stand for more than a memory holds, are refused too.
    """

    def __init__(self, stream: Any):
        super().__init__(stream)
        self._sizes: dict[yaml.Node, int] = {}  # of nodes whose aliases are written out

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping. Raises yaml.MarkedYAMLError for a key that stands there twice."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                problem = f"the key {key.value} stands there twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else key)
        return node

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Any node.

        Raises yaml.MarkedYAMLError for an alias inside of what it stands for, and for too many.
        """
        node = super().compose_node(parent, index)
        if node and node.end_mark is None:
            problem = "an alias stands inside of what it stands for"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        if node:
            self._sizes[node] = 1 + sum(self._sizes[part] for part in _parts(node))
            if self._sizes[node] > _MOST_NODES:
                problem = f"with its aliases it stands for more than {_MOST_NODES:,} values"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return node


def _parts(node: yaml.Node) -> list[yaml.Node]:
    """What a list or a mapping holds, keys included."""
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


class OmegaConfLoader(StrictLoader):
    """YAML as OmegaConf reads it, and slime with it for --eval-config: 1e-1 is a number."""


OmegaConfLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def read_yaml(path: str | Path, who: str, loader: type[StrictLoader] = StrictLoader) -> Any:
    """What a YAML file holds; None where it is empty.

    Raises UserError, beginning with `who`, for a file that cannot be read or is no YAML, and
    for a key that stands twice in a mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        return yaml.load(text, loader)
    except OSError as error:
        raise UserError(f"{who}: cannot be read ({error.strerror}); check the path") from None
    # A date or number that is none raises ValueError, a deeply nested file RecursionError.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{who}: broken YAML: {_told(error)}") from None


def _told(error: Exception) -> str:
    """What PyYAML says, and where; without the line itself, in which a key may stand."""
    if not isinstance(error, yaml.MarkedYAMLError) or not error.problem_mark:
        return one_line(str(error))
    mark = error.problem_mark
    return one_line(f"{error.problem} (line {mark.line + 1}, column {mark.column + 1})")


def read_keys(path: Path, prefix: str) -> dict:
    """The `key: value` lines of a file. Raises UserError where a key does not begin with prefix."""
    values = read_yaml(path, str(path)) or {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: must hold `key: value` lines")
    for key in values:
        if not str(key).startswith(prefix):
            raise UserError(f"{path}: unknown key {key}; every key begins with {prefix}")
    return values


def bare_keys(source: Mapping[str, Any], prefix: str, known: Sequence[str]) -> dict[str, Any]:
    """The settings of `source` that begin with `prefix`, without it; others are passed over.

    Raises UserError for one that is not `known`, with the closest that is.
    """
    written = {}
    for key, value in source.items():
        if not key.startswith(prefix):
            continue
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
            raise UserError(f"unknown {prefix.rstrip('_')} setting {key}; {hint}")
        written[key.removeprefix(prefix)] = value
    return written
