"""The order of the package's rooms, and the sizes of files and functions."""

import ast
import functools
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Top to bottom: a room imports only from rooms below it. Rooms of one line do not know each other.
ORDER = """
cli
agents codecs reports
evaluation
provenance
envs transcoding
policies
dependency quality
encoder datasets
media
parallel cache plugins tensors
storage
errors
"""
FLOORS = {room: floor for floor, line in enumerate(ORDER.split("\n")) for room in line.split()}
LONGEST_FILE, LONGEST_FUNCTION = 500, 80  # lines

Modules = dict[str, ast.Module]


@functools.cache
def package() -> Modules:
    """Return the parsed modules of the package by name."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        folders = tomllib.load(file)["tool"]["scikit-build"]["wheel"]["packages"]
    found: Modules = {}
    for name, folder in folders.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = [*name.split("/"), *path.relative_to(ROOT / folder).with_suffix("").parts]
            found[".".join(part for part in parts if part != "__init__")] = ast.parse(
                path.read_text()
            )
    return found


def with_line(module: str, line: str) -> Modules:
    """Return the package with one more statement in a module."""
    body = [*package()[module].body, *ast.parse(line).body]
    return {**package(), module: ast.Module(body, type_ignores=[])}


def imports(modules: Modules, name: str, everywhere: bool = True) -> Iterator[str]:
    """Yield the package's modules that a module imports; at its top level only, or everywhere."""
    tree = modules[name]
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module in modules:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in modules:
                    yield inner
                elif not alias.name.startswith("_"):  # the extensions, which import nothing
                    yield node.module


def room(name: str) -> str:
    """Return the room of a module; of ``vpxrc`` itself an empty name."""
    return name.split(".")[1] if "." in name else ""


def wrong_ways(modules: Modules) -> list[str]:
    """Return the imports that go up or sideways, as ``importer -> imported``."""
    found = []
    for name in modules:
        here = room(name)
        for other in imports(modules, name):
            there = room(other)
            if here in FLOORS and (
                there not in FLOORS or (here != there and FLOORS[there] <= FLOORS[here])
            ):
                found.append(f"{name} -> {other}")
    return found


def circles(modules: Modules) -> list[str]:
    """Return a circle of modules that import each other when they are loaded, if there is one."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in imports(modules, name, everywhere=False):
            if found := visit(other, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in modules if (found := visit(name, []))), [])


def test_rooms_import_downwards_only():
    assert wrong_ways(package()) == []


def test_every_room_is_in_the_order():
    assert {room(name) for name in package()} - {"", "__main__"} == set(FLOORS)


def test_there_is_no_circle():
    assert circles(package()) == []


@pytest.mark.parametrize(
    ("module", "line", "wrong"),
    [
        ("vpxrc.errors", "import vpxrc.storage", "vpxrc.errors -> vpxrc.storage"),
        ("vpxrc.storage", "from vpxrc import EncodeLog", "vpxrc.storage -> vpxrc"),
        (
            "vpxrc.encoder.log",
            "def f():\n    from vpxrc.policies.base import Policy",
            "vpxrc.encoder.log -> vpxrc.policies.base",
        ),
        (
            "vpxrc.agents.residual",
            "from vpxrc.reports.style import COLOURS",
            "vpxrc.agents.residual -> vpxrc.reports.style",
        ),
    ],
)
def test_a_wrong_import_is_found(module, line, wrong):
    assert wrong in wrong_ways(with_line(module, line))


def test_a_circle_is_found():
    assert circles(with_line("vpxrc.errors", "from vpxrc.storage import cache_dir")) in (
        ["vpxrc.errors", "vpxrc.storage", "vpxrc.errors"],
        ["vpxrc.storage", "vpxrc.errors", "vpxrc.storage"],
    )


def lengths() -> Iterator[tuple[str, int, int]]:
    """Yield the name, the lines and the most of every file and function of the package."""
    for name, tree in package().items():
        yield (
            name,
            max((getattr(node, "end_lineno", 0) for node in tree.body), default=0),
            LONGEST_FILE,
        )
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                yield f"{name}.{node.name}", node.end_lineno - node.lineno + 1, LONGEST_FUNCTION


def test_files_and_functions_are_short():
    assert [entry for entry in lengths() if entry[1] > entry[2]] == []
