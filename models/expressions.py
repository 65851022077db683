"""A MONAI configuration as data: references are followed, and of expressions only those that spell a value are read.

MONAI evaluates every text that begins with `$` as Python (https://docs.monai.io/en/stable/config_syntax.html). Here
nothing is evaluated. Read are literals, references in them, `a if b else c`, texts joined by `+`, the entry of a table,
and calls of the functions that the caller knows and carries out in its own way; anything else is refused by its name.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_REFERENCE = re.compile(r"@(\w+(?:(?:#|::)\w+)*)")


class Configuration:
    """Entries by name, parts of them by `#`: `inferer#roi_size`, `preprocessing#transforms#2#axcodes`.

    calls: what stands for a function in an expression, by the name that it has there; it is given its first argument.
    KeyError means that there is no such entry, ValueError that its value would have to be executed.
    """

    def __init__(self, content: Mapping[str, Any], calls: Mapping[str, Callable[[Any], Any]]) -> None:
        self._content = content
        self._calls = calls

    def find(self, name: str) -> Any:
        """An entry as it stands, where it is not a reference to another."""
        entry: Any = self._content
        for part in re.split("#|::", name):
            table = dict(enumerate(entry)) if isinstance(entry, list) else entry
            key = int(part) if isinstance(entry, list) and part.isdecimal() else part
            if not isinstance(table, dict) or key not in table:
                raise KeyError(name)
            entry = self._follow(table[key])
        return entry

    def value(self, name: str) -> Any:
        """An entry as plain numbers, texts, lists and tables."""
        return self.read(self.find(name), name)

    def components(self, target: str) -> Iterator[dict[str, Any]]:
        """Everything of a class, wherever it stands."""
        pending: list[Any] = [self._content]
        while pending:
            entry = pending.pop()
            if isinstance(entry, dict) and class_name(entry) == target:
                yield entry
            if isinstance(entry, (dict, list)):
                pending.extend(entry.values() if isinstance(entry, dict) else entry)

    def read(self, entry: Any, name: str) -> Any:
        """Any part as plain data; name: what to call it where it cannot be read."""
        entry = self._follow(entry)
        if isinstance(entry, dict):
            return {key: self.read(part, f"{name}#{key}") for key, part in entry.items()}
        if isinstance(entry, list):
            return [self.read(part, f"{name}#{at}") for at, part in enumerate(entry)]
        if isinstance(entry, str) and entry.startswith(("$", "%")):
            return self._spelled(entry, name)
        return entry

    def _follow(self, entry: Any) -> Any:
        if isinstance(entry, str) and (reference := _REFERENCE.fullmatch(entry.strip())):
            return self.find(reference[1])
        return entry

    def _spelled(self, text: str, name: str) -> Any:
        spelled = _REFERENCE.sub(lambda found: repr(self.value(found[1])), text.removeprefix("$").strip())
        try:
            return self._literal(ast.parse(spelled, mode="eval").body)
        except (SyntaxError, ValueError, TypeError, LookupError):
            raise ValueError(f"{name} would have to be executed: {text}") from None

    def _literal(self, node: ast.expr) -> Any:
        match node:
            case ast.IfExp():
                return self._literal(node.body if self._literal(node.test) else node.orelse)
            case ast.BinOp(op=ast.Add()):
                return "".join([self._literal(node.left), self._literal(node.right)])
            case ast.Subscript():
                return self._literal(node.value)[self._literal(node.slice)]
            case ast.Call(args=[argument, *_]) if ast.unparse(node.func) in self._calls:
                return self._calls[ast.unparse(node.func)](self._literal(argument))
        return ast.literal_eval(node)


def class_name(component: Mapping[str, Any]) -> str:
    """The class that a component is of, without its module: MONAI's are known by their names alone."""
    return str(component.get("_target_", "")).rpartition(".")[2]
