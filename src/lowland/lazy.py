"""Public names are imported when they are first used, so that `import lowland` takes no time."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lowland.keywords import hint


def attach(
    namespace: dict[str, Any], names: Sequence[str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package (PEP 562) whose imports stand under `if not _LAZY:`,
    where type checkers and editors read them.

    The rooms of the package are attributes, too. Functions and classes are `hinted` as they come.

    Args:
        namespace: `globals()` of the package. names: its `__all__`.
    """
    package = namespace["__name__"]
    modules = lazy_imports(Path(namespace["__file__"]).read_text(encoding="utf-8"))

    def load(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version

            namespace[name] = version(package)
        elif name in modules:
            importlib.import_module(modules[name])
            _publish(namespace, names, modules)
        elif name.startswith("_") or not _has_module(package, name):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        else:
            return importlib.import_module(f"{package}.{name}")
        return namespace[name]

    return load, lambda: sorted({*names, "__version__"})


def _publish(namespace: dict[str, Any], names: Sequence[str], modules: dict[str, str]) -> None:
    """Names of all rooms that are imported by now: one room's objects are made by another."""
    new = {}
    for name in names:
        if name not in namespace and (module := sys.modules.get(modules[name])):
            value = getattr(module, name, None)  # None: a room that is still being imported
            if value is not None:
                new[name] = value
    namespace.update(new)
    hint(namespace, new)


def _has_module(package: str, name: str) -> bool:
    return importlib.util.find_spec(f"{package}.{name}") is not None


def lazy_imports(source: str) -> dict[str, str]:
    """Name -> module, of the imports under `if not _LAZY:`.

    >>> lazy_imports("if not _LAZY:\\n    from lowland.core import Point, Task")
    {'Point': 'lowland.core', 'Task': 'lowland.core'}
    """
    return {
        alias.name: str(child.module)
        for node in ast.parse(source).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "not _LAZY"
        for child in node.body
        if isinstance(child, ast.ImportFrom)
        for alias in child.names
    }
