"""The rules of docs/architecture.md that a machine can check: the budget of sizes, the habits, who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("dicomnode", "pipeline", "models", "training")
FILES = sorted(
    path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if not {"versions", "bundles"} & set(path.relative_to(ROOT).parts)
)
NAMES_THAT_SAY_NOTHING = {"utils", "helpers", "common", "core", "base", "manager", "handler"}
ACTORS = {
    "assembler.py",
    "worker.py",
    "courier.py",
    "receiver.py",
    "housekeeper.py",
    "puller.py",
    "herald.py",
    "historian.py",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
FUNCTIONS = [
    (f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node)
    for path, tree in TREES.items()
    for node in ast.walk(tree)
    if isinstance(node, Function)
]


def count_body_lines(function: Function) -> int:
    """Lines from the first statement after the docstring to the last."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def count_parameters(function: Function) -> int:
    """Positional-or-keyword parameters besides self and cls; a command's parameters are its options, not a call."""
    if any("command" in ast.unparse(decorator) for decorator in function.decorator_list):
        return 0
    names = [argument.arg for argument in [*function.args.posonlyargs, *function.args.args]]
    return len([name for name in names if name not in ("self", "cls")])


def calls_and_handlers(path: Path) -> list[ast.AST]:
    return list(ast.walk(TREES[path]))


def test_the_packages_are_found() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in FILES} >= {"dicomnode", "pipeline", "models"}
    assert len(FUNCTIONS) > 200


def test_files_are_short() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > 400} == {}
    assert median(lengths.values()) < 200


def test_functions_are_short() -> None:
    lengths = {name: count_body_lines(function) for name, function in FUNCTIONS}
    assert {name: length for name, length in lengths.items() if length > 60} == {}
    long = {name: length for name, length in lengths.items() if length > 25}
    assert len(long) <= 0.1 * len(lengths), long
    assert median(lengths.values()) <= 8


def test_functions_take_few_parameters() -> None:
    counts = {name: count_parameters(function) for name, function in FUNCTIONS}
    # Methods whose signature a library prescribes.
    prescribed = {name for name in counts if name.endswith("settings_customise_sources")}
    assert {name: count for name, count in counts.items() if count > 5 and name not in prescribed} == {}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_named_for_what_it_is(path: Path) -> None:
    assert not NAMES_THAT_SAY_NOTHING & {part.removesuffix(".py") for part in path.relative_to(ROOT).parts}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_changes_state_of_its_own(path: Path) -> None:
    assert [node.lineno for node in calls_and_handlers(path) if isinstance(node, ast.Global)] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_command_line_and_training_print(path: Path) -> None:
    if path.parent == ROOT / "dicomnode" / "cli" or path.is_relative_to(ROOT / "training"):
        return
    printed = [
        node.lineno
        for node in calls_and_handlers(path)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert printed == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_actors_catch_everything(path: Path) -> None:
    if path.parent == ROOT / "dicomnode" and path.name in ACTORS:
        return
    broad = [
        node.lineno
        for node in calls_and_handlers(path)
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or {"Exception", "BaseException"} & set(ast.unparse(node.type).strip("()").split(", ")))
    ]
    assert broad == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_settings_read_the_environment(path: Path) -> None:
    if path == ROOT / "dicomnode" / "settings.py" or path.is_relative_to(ROOT / "training"):
        return
    read = [
        node.lineno
        for node in calls_and_handlers(path)
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
    ]
    assert read == []


def test_imports_keep_to_the_layers() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
