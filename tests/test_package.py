"""What `pip install .` takes along."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "requirements-browser.lock", "requirements-sweep.lock", "requirements-notebook.lock")
LOCKS += ("requirements-docs.lock",)


def test_every_package_is_named_for_installation():
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    modules = (path for folder in ("analyses", "checks", "fathom") for path in (ROOT / folder).rglob("*.py"))
    found = {path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in modules}
    assert set(named) == found | {"checks.templates"}


def test_the_lock_file_pins_every_dependency_exactly_and_within_the_declared_ranges():
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locks = "".join((ROOT / name).read_text() for name in LOCKS)
    lines = [line for line in locks.splitlines() if not line.startswith("#")]
    pinned = {name.lower(): version for name, version in (line.split("==") for line in lines)}
    extras = project["optional-dependencies"]
    own = [text for name in ("test", "browser", "slurm", "dask", "notebook", "docs") for text in extras[name]]
    for text in project["dependencies"] + own:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pinned[requirement.name]), text


def test_the_project_ships_no_pickle_and_a_reference_model_under_eight_megabytes():
    files = [path for path in (ROOT / "checks" / "reference").iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 8_000_000
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md", ".py"}


def test_the_environment_of_the_makefile_holds_the_command_that_the_readme_speaks_of():
    makefile = (ROOT / "Makefile").read_text()
    recipe = makefile.partition("$(READY): ")[2].partition("\n\n")[0]
    needs, *steps = recipe.splitlines()
    assert needs.split() == ["requirements.lock", "pyproject.toml"]
    installs = [step for step in steps if "pip install" in step]
    assert "--requirement requirements.lock" in installs[0] and installs[-1].endswith("--no-deps --editable .")
    assert steps[-1] == "\t@touch $@"
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"fathom": "checks.cli:main"}
    assert ".venv/bin/fathom" in (ROOT / "README.md").read_text()
