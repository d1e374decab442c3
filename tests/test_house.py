"""The house stays as it was built: who may import whom, what is documented, what stays light."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

import lowland as ll

ROOT = Path(ll.__file__).parent
TESTS = Path(__file__).parent
DOCS = TESTS.parent / "docs" / "api"
FILES = sorted(ROOT.rglob("*.py"))

BASE = {
    "checks",
    "errors",
    "keywords",
    "schema",
    "files",
    "tensor_files",
    "records",
    "progress",
    "memory",
    "metrics",
    "warn",
}
#: room -> the rooms that its modules may import when they are imported
BELOW: dict[str, set[str]] = {
    "errors": set(),
    "keywords": {"errors"},
    "lazy": {"keywords"},
    "memory": set(),
    "warn": set(),
    "checks": {"errors"},
    "metrics": {"errors"},  # declared below all: plots read them, evaluate computes them
    "progress": {"errors"},
    "schema": {"errors"},
    "files": {"errors"},
    "tensor_files": {"errors", "schema", "files"},
    "records": {"errors", "metrics", "schema", "files", "tensor_files"},
    "artifacts": {"errors", "schema", "files", "tensor_files", "progress"},
    "core": BASE,
    "geometry": BASE | {"core"},
    "posteriors": BASE | {"core", "geometry"},
    "trajectory": BASE | {"core", "geometry", "posteriors"},
    # long builders keep their state by `artifacts.Checkpoint`, which knows no network
    "samplers": BASE
    | {"artifacts", "core", "geometry", "posteriors", "trajectory", "evaluate", "landscape"},
    "scoring": BASE | {"core"},
    "evaluate": BASE | {"core", "geometry", "posteriors", "scoring"},
    "uncertainty": BASE | {"core", "posteriors", "scoring", "evaluate"},
    "train": BASE | {"artifacts", "core", "geometry", "posteriors", "trajectory"},
    "alignment": BASE | {"core"},
    "landscape": BASE | {"artifacts", "core", "geometry", "posteriors", "trajectory", "evaluate"},
    "curvature": BASE
    | {"artifacts", "core", "geometry", "posteriors", "trajectory", "evaluate", "alignment"}
    | {"landscape"},
    # which iterates to average: it judges them as `uncertainty` and `landscape` do
    "averaging": BASE
    | {"core", "geometry", "posteriors", "trajectory", "scoring", "evaluate", "uncertainty"}
    | {"landscape", "curvature"},
    "zoo": BASE | {"core"},
    "plots": BASE - {"progress"},
    "report": BASE | {"plots"},
}
BELOW["runs"] = set(BELOW)  # all but the commands

#: they see all; "" is lowland/__init__.py, and __main__ is the command line
EVERYTHING = {"cli", "integrations", "__main__", ""}
UNSEEN = {"cli", "integrations"}  # nobody imports them
#: what may be imported inside a function body besides, to give objects methods of rooms above
LAZY = {
    ("records", "plots"),  # record.plot()
    ("core", "evaluate"),  # surface.evaluate()
    ("records", "posteriors"),  # chain.posterior()
    ("geometry", "trajectory"),  # Subspace.pca
    ("geometry", "curvature"),  # Subspace.hessian
}
HEAVY = (
    "matplotlib",
    "torchmetrics",
    "pandas",
    "typer",
    "pydantic",
    "sklearn",
    "yaml",
    "rich",
    "lightning",
    "transformers",
    "scipy",
    "pyarrow",
    "PIL",
    "laplace",
    "arviz_stats",
    "zuko",
    "curvlinops",
)


def room_of(path: Path) -> str:
    first = path.relative_to(ROOT).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def module_of(path: Path) -> str:
    parts = ["lowland", *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.Module) -> Iterator[tuple[str, bool, int]]:
    """(module, whether inside a function body, line) for every import that runs."""

    def walk(node: ast.AST, inside: bool) -> Iterator[tuple[str, bool, int]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                for other in child.orelse:
                    yield from walk(other, inside)
            elif isinstance(child, ast.Import):
                for alias in child.names:
                    yield alias.name, inside, child.lineno
            elif isinstance(child, ast.ImportFrom):
                assert not child.level, f"relative import, line {child.lineno}"
                for alias in child.names:
                    # `from lowland import plots` imports the module lowland.plots
                    yield f"{child.module}.{alias.name}", inside, child.lineno
            else:
                function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from walk(child, inside or function)

    yield from walk(tree, False)


def offences(source: str, room: str) -> list[str]:
    """Imports in a module of `room` that point the wrong way."""
    out = []
    for name, inside, line in imports(ast.parse(source)):
        parts = name.split(".")
        if parts[0] != "lowland" or len(parts) < 2 or room in EVERYTHING:
            continue
        other = parts[1]
        known = other in BELOW or other in EVERYTHING
        allowed = other == room or other in BELOW[room] or (inside and (room, other) in LAZY)
        if not known or not allowed:
            out.append(f"line {line}: {room} imports {name}")
    if room in EVERYTHING:
        names = [name.split(".") for name, _, _ in imports(ast.parse(source))]
        seen = {parts[1] for parts in names if parts[0] == "lowland" and len(parts) > 1}
        mine = {"cli"} if room == "__main__" else {room}
        out += [f"{room or '__init__'} imports {other}" for other in seen & UNSEEN - mine]
    return out


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    room = room_of(path)
    assert room in BELOW or room in EVERYTHING, f"{room}: say in BELOW what it may import"
    assert offences(path.read_text(encoding="utf-8"), room) == []


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("core", "from lowland.posteriors import Ensemble"),
        ("core", "def f():\n    from lowland.posteriors import Ensemble"),
        ("core", "import lowland"),
        ("records", "from lowland import plots"),
        ("records", "from lowland.plots.style import save"),
        ("plots", "from lowland.core import LossSurface"),
        ("trajectory", "from lowland.train import sgd"),
        ("train", "from lowland.cli import main"),
        ("cli", "from lowland.integrations import lightning"),
        ("", "from lowland.cli import main"),
    ],
)
def test_the_check_finds_imports_that_point_up(room: str, source: str) -> None:
    if source == "import lowland":  # would run everything: the package is not a room
        assert "lowland" in {name for name, _, _ in imports(ast.parse(source))}
        return
    assert offences(source, room)


def test_the_check_allows_what_is_allowed() -> None:
    lazy = "def f():\n    from lowland import plots"
    assert not offences(lazy, "records")
    assert not offences("if TYPE_CHECKING:\n    from lowland.plots import draw", "records")
    assert not offences("from lowland.cli import main", "cli")


def test_nobody_imports_the_whole_house() -> None:
    for path in FILES:
        if room_of(path) not in EVERYTHING:
            names = {name for name, _, _ in imports(ast.parse(path.read_text(encoding="utf-8")))}
            exported = names & {"lowland", *(f"lowland.{name}" for name in public())}
            assert not exported, f"{path}: import from the room, not from the package"


def circle(graph: dict[str, set[str]]) -> list[str]:
    """A way round, if there is one."""
    done: set[str] = set()

    def visit(node: str, way: list[str]) -> list[str]:
        if node in way:
            return [*way[way.index(node) :], node]
        if node in done:
            return []
        for other in sorted(graph.get(node, ())):
            found = visit(other, [*way, node])
            if found:
                return found
        done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := visit(node, []))), [])


def test_no_import_goes_round_in_a_circle() -> None:
    modules = {module_of(path): path for path in FILES}
    graph = {}
    for name, path in modules.items():
        found = set()
        for target, inside, _ in imports(ast.parse(path.read_text(encoding="utf-8"))):
            hit = target if target in modules else target.rpartition(".")[0]
            # a room's __init__ is made of its files, and a file may take its siblings alone
            if not inside and hit in modules and hit != name:
                found.add(hit)
        graph[name] = found
    assert circle(graph) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})  # a broken twin
    assert any(graph.values())


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_file_shows_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), "no module docstring"


#: modules whose tests do not lie at their path, and why
ELSEWHERE = {
    "__main__": "tests/cli/test_run.py starts it as a process",
    "plots/__init__": "tests/plots/test_plots.py",
    "cli/__init__": "tests/cli/test_console.py",
}


def without_tests() -> set[str]:
    """Modules x of a room without tests/ROOM/test_x.py; an `__init__` that only names others' work
    needs none."""
    found = set()
    for path in FILES:
        body = ast.parse(path.read_text(encoding="utf-8")).body
        if path.stem == "__init__" and not any(
            isinstance(node, ast.FunctionDef | ast.ClassDef) for node in body
        ):
            continue
        module = path.relative_to(ROOT)
        if not (TESTS / module.parent / f"test_{module.name}").is_file():
            found.add(module.with_suffix("").as_posix())
    return found


def test_every_module_has_its_tests_at_its_path() -> None:
    """src/lowland/ROOM/x.py -> tests/ROOM/test_x.py"""
    assert without_tests() == ELSEWHERE.keys()


#: participles and words of our own that name no thing: say what it is (`config`, `message`)
NO_NAMES = {
    "asked", "begun", "chosen", "drawn", "figures", "found", "given", "grown", "held", "joined",
    "judged", "kept", "known", "listed", "lost", "made", "meant", "moved", "named", "opened",
    "ran", "rate", "said", "settled", "shown", "strange", "taken", "told", "tried", "walk",
    "wanted",
}  # fmt: skip


def names_given(source: str) -> Iterator[tuple[str, int]]:
    """Every name that the source gives to a variable, argument, attribute, function or class."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno


def test_names_say_what_a_thing_is() -> None:
    bad = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in FILES
        for name, line in names_given(path.read_text(encoding="utf-8"))
        if name.strip("_") in NO_NAMES
    ]
    assert bad == []
    twin = "def told(kept): self.asked = found = kept"
    assert {name for name, _ in names_given(twin)} == {"told", "kept", "asked", "found"}


def public() -> list[str]:
    names = getattr(ll, "__all__", None) or [n for n in vars(ll) if not n.startswith("_")]
    modules = {m.name for m in pkgutil.iter_modules(ll.__path__)}
    out = []
    for name in names:
        # a room is a name of the package once it is imported; a function of the room's name is not
        if name in modules and inspect.ismodule(getattr(ll, name)):
            continue
        if name != "__version__":
            out.append(name)
    return out


@pytest.mark.parametrize("name", public())
def test_every_public_name_has_a_docstring(name: str) -> None:
    thing = getattr(ll, name)
    assert thing.__doc__, f"lowland.{name} has no docstring"
    if inspect.isclass(thing) and thing.__module__.startswith("lowland"):
        for key, member in vars(thing).items():
            function = member.fget if isinstance(member, property) else member
            function = getattr(function, "__func__", function)
            if key.startswith("_") or not inspect.isfunction(function):
                continue
            # what a base, or a protocol beside it, has said need not be said again
            others = [*thing.__mro__[1:], *vars(sys.modules[thing.__module__]).values()]
            said = [
                getattr(vars(o).get(key), "__doc__", None) for o in others if inspect.isclass(o)
            ]
            forward = key == "forward" and issubclass(thing, nn.Module)
            assert function.__doc__ or any(said) or forward, f"lowland.{name}.{key}: no docstring"


@pytest.mark.parametrize("name", public())
def test_every_public_name_has_a_page(name: str) -> None:
    lines = {line.strip() for page in DOCS.glob("*.md") for line in page.read_text().splitlines()}
    assert f"::: lowland.{name}" in lines, f"write '::: lowland.{name}' in a page of docs/api"


def test_pages_name_nothing_that_is_gone() -> None:
    for page in DOCS.glob("*.md"):
        for line in page.read_text(encoding="utf-8").splitlines():
            if line.startswith("::: lowland.integrations."):  # their libraries may be missing
                module, _, name = line.removeprefix("::: lowland.").strip().rpartition(".")
                source = ROOT.joinpath(*module.split(".")).with_suffix(".py").read_text()
                assert name in {getattr(n, "name", "") for n in ast.parse(source).body}, line
            elif line.startswith("::: lowland."):
                thing = ll
                for part in line.removeprefix("::: lowland.").strip().split("."):
                    assert hasattr(thing, part) or importlib.util.find_spec(
                        f"{thing.__name__}.{part}"
                    ), f"{page.name}: {line}"
                    thing = getattr(thing, part, None) or importlib.import_module(
                        f"{thing.__name__}.{part}"
                    )


def test_importing_lowland_is_light() -> None:
    code = (
        "import sys, lowland\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])\n"
        "print([m for m in sys.modules if m.startswith(('lowland.plots', 'lowland.cli', "
        "'lowland.integrations', 'lowland.zoo'))])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["[]", "[]"], out.stdout


def test_the_extra_of_the_command_line_has_what_its_commands_import() -> None:
    """R-hat was told by a package that `pip install "lowland[cli]"` did not bring."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
    extras = project["project"]["optional-dependencies"]

    def names(extra: str) -> Iterator[str]:
        for line in extras[extra]:
            name, others = re.match(r"([\w-]+)(?:\[([\w,]+)\])?", line).groups()
            yield name
            for other in (others or "").split(",") if name == "lowland" else ():
                yield from names(other)

    assert {"matplotlib", "arviz-stats", "zuko", "pandas", "scipy"} <= set(names("cli"))


def test_no_module_is_there_twice():
    """Neither where doctests are collected beside tests: see `tests.conftest.import_packages`."""
    for name in ll.__all__:
        each = getattr(ll, name)
        if inspect.isclass(each) or inspect.isfunction(each):
            assert getattr(sys.modules[each.__module__], each.__name__) is each, name
