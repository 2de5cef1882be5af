"""YAML that a stranger may have written: plain values, or a sentence that says what is wrong."""

from __future__ import annotations

from typing import Any

import yaml

from tinylm.errors import UserError


class _Loader(yaml.SafeLoader):
    """Values alone: no objects of Python's, as in `SafeLoader`, and no aliases.

    A few lines of aliases of aliases, or of merged mappings, stand for more values than fit into memory.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            problem = "aliases, such as *name, are not read; write the value itself"
            raise yaml.composer.ComposerError(None, None, problem, mark)
        return super().compose_node(parent, index)


def parse_yaml(text: str, source: str) -> tuple[Any, Any]:
    """YAML text as values, and as nodes that know their lines; `source` names it in errors.

    Raises:
        UserError: it is not YAML, or holds more than plain values; names the line.
    """
    try:
        return yaml.load(text, _Loader), yaml.compose(text, _Loader)  # noqa: S506 (a safe one)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{source}, line {line} is not valid YAML: {error.problem}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{source} is not valid YAML: {' '.join(str(error).split())}.") from error
