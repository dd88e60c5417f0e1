"""The sources of the package as a whole: imports without circles, and unique names."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

import ringest

PACKAGE = Path(ringest.__file__).parent
MODULES = {path.stem: path.read_text(encoding="utf-8") for path in PACKAGE.glob("*.py")}


def imported_modules(module: str, source: str, known: set[str]) -> set[str]:
    """The modules of the package that a module imports anywhere: in functions and `if`s too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for one in node.names:
                package, _, name = one.name.partition(".")
                if package == "ringest":
                    found.add(name or "__init__")
        elif isinstance(node, ast.ImportFrom):
            # A relative import is one of this package, which has no folders.
            path = "ringest." + (node.module or "") if node.level > 0 else node.module or ""
            package, _, name = path.rstrip(".").partition(".")
            if package != "ringest":
                continue
            # `from ringest import x` is an import of a module x, or of the package.
            names = {one.name for one in node.names} & known
            found |= {name} if name else names or {"__init__"}
    assert found <= known, (module, found - known)
    return found


def circle_in(modules: dict[str, str]) -> list[str]:
    """A circle of imports, as the modules on the way; empty if there is none."""
    known = set(modules)
    arrows = {name: imported_modules(name, text, known) for name, text in modules.items()}
    done: set[str] = set()

    def search(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(arrows[name]):
            if circle := search(other, [*path, name]):
                return circle
        done.add(name)
        return []

    return next((circle for name in sorted(arrows) if (circle := search(name, []))), [])


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert "schema" in imported_modules("results", MODULES["results"], set(MODULES))
    assert circle_in(MODULES) == []


@pytest.mark.parametrize(
    "source",
    [
        "import ringest.a",
        "from ringest.a import x",
        "from ringest import a",
        "from . import a",
        "from .a import x",
        "def f():\n    from ringest.a import x",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ringest.a import x",
    ],
)
def test_every_form_of_import_closes_a_circle(source: str) -> None:
    modules = {"__init__": "", "a": "from ringest.b import x", "b": source}
    assert circle_in(modules) == ["a", "b", "a"]
    assert circle_in({**modules, "b": "import json"}) == []


def test_a_name_stands_for_one_thing() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for module, source in MODULES.items():
        for node in ast.parse(source).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                places[node.name].append(module)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    if isinstance(target, ast.Name):
                        places[target.id].append(module)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
