"""The layers of the package, read from its imports."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "kclassify"
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))

# A room imports from its own line and from the lines above it.
LAYERS = [
    {"checks", "presets"},
    {"atomic", "spreadsheet"},
    {"runs", "runtime"},
    {"models.registry"},
    {"config"},
    {"scaling"},
    {"data", "models", "reporting"},
    {"evaluation", "training", "serving"},
    {"search", "compression"},
    {"parsing"},
    {"options"},
    {"cli"},
    {"__main__"},
]
HEAVY = {"tensorflow", "keras"}
LIGHT_MODULES = (
    "__init__",
    "atomic",
    "checks",
    "presets",
    "config",
    "scaling",
    "runs",
    "cli",
    "options",
    "parsing",
    "models/registry",
)


def layer_of(module):
    room = module.removeprefix("kclassify.")
    names = [room, room.split(".")[0]]
    return next(n for name in names for n, layer in enumerate(LAYERS) if name in layer)


def imports(path, *, top_level_only=False):
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else [n for n in ast.walk(tree) if not guarded(n)]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "kclassify":
            yield from (f"kclassify.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def guarded(node):
    return isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"


def typing_only(path):
    tree = ast.parse(path.read_text())
    blocks = [node for node in ast.walk(tree) if guarded(node)]
    return {n.module for block in blocks for n in ast.walk(block) if isinstance(n, ast.ImportFrom)}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    if name == "__init__" or name.endswith(".__init__"):
        return
    used = set(imports(path)) - typing_only(path)
    ours = {module for module in used if module.startswith("kclassify.")} - {
        "kclassify.__version__"
    }
    for module in ours:
        assert layer_of(module) <= layer_of(name), f"{name} imports {module}"


@pytest.mark.parametrize("name", LIGHT_MODULES)
def test_light_modules_load_nothing_heavy(name):
    roots = {
        module.split(".")[0] for module in imports(PACKAGE / f"{name}.py", top_level_only=True)
    }
    assert not roots & (HEAVY | {"pandas", "sklearn", "matplotlib", "numpy"})


def test_the_report_reads_files_alone():
    for path in (PACKAGE / "reporting").glob("*.py"):
        roots = {module.split(".")[0] for module in imports(path)}
        assert not roots & HEAVY, path


def test_the_consumer_imports_no_training():
    used = set(imports(PACKAGE / "serving" / "classifier.py"))
    assert not [module for module in used if "training" in module]


def test_rooms_have_empty_inits():
    for path in PACKAGE.glob("*/__init__.py"):
        assert path.read_text() == "", path


def test_no_asserts_in_the_package():
    for path in MODULES:
        assert not [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Assert)]
