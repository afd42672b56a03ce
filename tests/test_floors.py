"""The floors of the house: a module imports only from its own folder or from one further down, lazily or not."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = (
    "analyses",
    "analyses/numerics",
    "analyses/weights",
    "analyses/forward",
    "analyses/head_grams",
    "analyses/null_residual",
    "analyses/attention_stats",
    "analyses/delta_svd",
    "analyses/schedule_fit",
    "analyses/head_geometry",
    "analyses/residual_stream",
    "analyses/weight_spectra",
    "analyses/run",
    "checks",  # the version alone: what else lies there is named below
    "checks/options.py",
    "checks/reference",
    "checks/claims",
    "checks/twins",
    "checks/maps",
    "checks/machine",
    "checks/tables",
    "checks/own",
    "checks/controls",
    "checks/calibration",
    "checks/families",
    "checks/figures",
    "checks/sections",
    "checks/sections/null_residual",
    "checks/sections/schedule_fit",
    "checks/sections/head_grams",
    "checks/sections/attention_stats",
    "checks/sections/head_geometry",
    "checks/sections/delta_svd",
    "checks/verify",
    "checks/report",
    "checks/sweep",
    "checks/sweep/engines",
    "checks/export",
    "checks/bench",
    "checks/verbs",
    "checks/cli.py",
    "fathom",
)
"""From the ground up. A module named by itself stands on a floor of its own."""

MODULES = {
    path.relative_to(ROOT).with_suffix("").as_posix().removesuffix("/__init__").replace("/", "."): path
    for top in ("analyses", "checks", "fathom")
    for path in sorted((ROOT / top).rglob("*.py"))
}


def floor(path: Path) -> str:
    """The entry of FLOORS that a module stands on."""
    relative = path.relative_to(ROOT)
    return next(name for name in (relative.as_posix(), relative.parent.as_posix()) if name in FLOORS)


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """(module of this project, line) of every import statement, wherever in the file; a name of a package is none."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name for name in inside if name in MODULES]
            names += [node.module] if len(names) < len(inside) else []
        else:
            continue
        yield from ((name, node.lineno) for name in names if name in MODULES)


def test_every_folder_of_code_stands_on_a_floor_and_every_floor_is_there():
    folders = {path.parent.relative_to(ROOT).as_posix() for path in MODULES.values()}
    assert folders <= set(FLOORS), f"without a floor: {sorted(folders - set(FLOORS))}"
    assert all((ROOT / name).exists() for name in FLOORS)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_its_own_folder_or_further_down(module):
    path = MODULES[module]
    here = FLOORS.index(floor(path))
    for other, line in imports(path):
        assert FLOORS.index(floor(MODULES[other])) <= here, (
            f"{path.relative_to(ROOT)}:{line}: {module} imports {other}, which stands above it"
        )


def test_measuring_knows_nothing_of_judging():
    named = [(module, other) for module, path in MODULES.items() for other, _ in imports(path)]
    assert not [pair for pair in named if pair[0].startswith("analyses") and pair[1].startswith("checks")]


def test_no_two_modules_import_each_other():
    reached = {module: {other for other, _ in imports(path)} - {module} for module, path in MODULES.items()}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f"imports in a circle: {' → '.join((*way[way.index(module) :], module))}"
        if module not in done:
            for other in sorted(reached[module]):
                visit(other, (*way, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def test_an_import_upwards_is_found_also_inside_a_function(tmp_path):
    path = tmp_path / "module.py"
    path.write_text("def late():\n    from checks.verbs import run\n    import analyses.records\n", encoding="utf-8")
    assert sorted(imports(path)) == [("analyses.records", 3), ("checks.verbs.run", 2)]
