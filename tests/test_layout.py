"""The order of the rooms: a folder imports only folders that stand above it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import tinylm

PACKAGE = Path(tinylm.__file__).parent
ROOMS = [
    "system",
    "text",
    "ops",
    "model",
    "train",
    "infer",
    "export",
    "fit",
    "report",
    "workflows",
    "paper",
    "bench",
    "serve",
    "cli",
]  # from the top
ANYWHERE = {"errors"}  # what everybody may import
LAST = {"bench", "serve", "cli"}  # nothing but the command line imports these


def room_of(module: str) -> str:
    """The folder, or the loose module, of the package that a dotted name lies in."""
    return module.split(".")[1] if "." in module else ""


def imports(path: Path) -> set[str]:
    """The rooms that a file imports, also within its functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {room_of(alias.name) for alias in node.names if alias.name.split(".")[0] == "tinylm"}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            if node.module == "tinylm":
                found |= {alias.name for alias in node.names if (PACKAGE / alias.name).exists()}
            elif node.module and node.module.startswith("tinylm."):
                found.add(room_of(node.module))
    return found


def arrows() -> dict[str, set[str]]:
    """For each room those that it imports."""
    return {
        room: set().union(*(imports(path) for path in (PACKAGE / room).rglob("*.py"))) - ANYWHERE - {room}
        for room in ROOMS
    }


def test_every_file_has_a_room() -> None:
    found = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert found == {*ROOMS, "__init__.py", "__main__.py", "errors.py", "py.typed"}
    assert all((PACKAGE / room / "__init__.py").is_file() for room in ROOMS)


def test_a_room_imports_only_what_stands_above_it() -> None:
    for room, imported in arrows().items():
        above = set(ROOMS[: ROOMS.index(room)])
        assert imported <= above, f"{room} imports {sorted(imported - above)}"


def test_nothing_imports_the_last_rooms() -> None:
    for room, imported in arrows().items():
        assert room == "cli" or not imported & LAST, f"{room} imports {sorted(imported & LAST)}"


def test_errors_imports_nothing() -> None:
    assert imports(PACKAGE / "errors.py") == set()


def test_errors_of_the_library_name_parameters_not_options() -> None:
    """Only the command line knows what its options are called."""
    found = [
        f"{path.relative_to(PACKAGE)}: {part.value}"
        for path in PACKAGE.rglob("*.py")
        if path.parent.name != "cli"
        for statement in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(statement, ast.Raise)
        for part in ast.walk(statement)
        if isinstance(part, ast.Constant) and re.search(r"--[a-z]", str(part.value))
    ]
    assert not found
