"""The DVC files: a stage depends on every module whose edit may change its result."""

import ast
from functools import cache
from pathlib import Path

import pytest
from ruamel.yaml import YAML

# What every stage uses and no number depends on.
PLUMBING = {"pipeline.run.console", "sagd.download", "sagd.errors", "sagd.files", "sagd.parallel", "sagd.progress"}
PLUMBING |= {"sagd.distributed", "pipeline.run.launch", "pipeline.run.budget"}
PLUMBING |= {"sagd.figures"}  # pictures of the first images; the report depends on it
STUDIES = ("dvc.yaml", "theory/dvc.yaml", "paper/dvc.yaml")


def file_of(module):
    path = Path(*module.split("."))
    return path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"


@cache
def imports(module):
    """The project's modules that a module imports itself."""
    found = set()
    for node in ast.walk(ast.parse(file_of(module).read_text())):
        if isinstance(node, ast.Import):
            names = {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
        else:
            continue
        found |= {n for n in names if n.startswith(("sagd.", "pipeline.")) and file_of(n).is_file()}
    return found


def needed(module):
    """All that a stage script imports, and the library's modules that those import, in any number of steps."""
    found, todo = {module}, imports(module) - PLUMBING
    if ".formulation(" in file_of(module).read_text():  # of pipeline.params, which makes one of these
        todo |= {"sagd.diffusion", "sagd.flow", "sagd.edm"}
    while todo:
        now = todo.pop()
        found.add(now)
        if now.startswith("sagd."):
            todo |= imports(now) - found - PLUMBING
    return found


def stages():
    for file in STUDIES:
        content = YAML(typ="safe").load(Path(file).read_text())
        for name, stage in content["stages"].items():
            yield pytest.param(file, stage.get("do", stage), id=f"{file}:{name}")


@pytest.mark.parametrize(("file", "stage"), list(stages()))
def test_a_stage_depends_on_what_it_imports(file, stage):
    script = stage["cmd"].split("python -m ")[1].split()[0]
    folder = Path(file).parent / stage.get("wdir", ".")
    deps = {(folder / d).resolve() for d in stage["deps"]}
    wanted = {file_of(m).resolve() for m in needed(script)}
    assert {str(p.relative_to(Path.cwd())) for p in wanted - deps} == set()
