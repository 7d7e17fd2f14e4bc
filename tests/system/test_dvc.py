"""What DVC runs again after an edit, held by a copy of the tree: one edit, then `dvc status`."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
STUDIES = ("dvc.yaml", "studies/theory/dvc.yaml", "studies/paper/dvc.yaml", "studies/claims/dvc.yaml")
# What no number depends on; and the schema, of which a stage depends on the values (and on the folder itself).
PLUMBING = ("sagd/errors.py", "sagd/runtime", "sagd/__init__.py", "pipeline/run", "pipeline/__init__.py")


def stages(file):
    """Stage names without their items, and what DVC is told of each."""
    for name, stage in YAML(typ="safe").load((ROOT / file).read_text())["stages"].items():
        yield name, stage.get("do", stage)


def file_of(module):
    path = ROOT / Path(*module.split("."))
    return path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"


@cache
def imports(module):
    """The project's modules that a module imports, anywhere in it; of a package's name, its __init__."""
    found = set()
    for node in ast.walk(ast.parse(file_of(module).read_text())):
        if isinstance(node, ast.Import):
            names = {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
        else:
            continue
        found |= {n for n in names if n.split(".")[0] in ("sagd", "pipeline", "studies") and file_of(n).is_file()}
    return found


def needed(modules):
    """All modules that some modules import, in any number of steps, but for plumbing and what the schema imports."""
    found, todo = set(), set(modules)
    while todo:
        now = todo.pop()
        path = str(file_of(now).relative_to(ROOT))
        if now in found or path.startswith(PLUMBING) or _words_alone(path):
            continue
        found.add(now)
        if not now.startswith("pipeline.params"):
            todo |= imports(now)
    return found


def _words_alone(path):
    return len(ast.parse((ROOT / path).read_text()).body) <= 1 and path.endswith("__init__.py")


def covered(module, folder, deps):
    """Whether a module lies in one of the dependencies of a stage."""
    path = file_of(module).resolve()
    return any((folder / d).resolve() in (path, *path.parents) for d in deps)


@pytest.mark.parametrize(("file", "name"), [(f, n) for f in STUDIES for n, _ in stages(f)])
def test_a_stage_depends_on_the_rooms_that_its_script_imports(file, name):
    stage, folder = dict(stages(file))[name], (ROOT / file).parent
    commands = stage["cmd"] if isinstance(stage["cmd"], list) else [stage["cmd"]]
    scripts = [re.search(r"python -m ((?:pipeline|studies)\.[\w.]+)", command)[1] for command in commands]
    missing = {m for m in needed(scripts) if not covered(m, folder, stage["deps"])}
    assert missing == set()


@pytest.mark.parametrize("file", STUDIES[1:])
def test_a_study_shares_the_cache_of_the_root(file):
    """And puts no .dvc between the two: DVC would take what holds it for a project of its own, and skip it."""
    place = (ROOT / file).parent / ".dvc"
    cache = re.search(r"^ *dir = (.+)$", (place / "config").read_text(), re.M)[1]
    assert (place / cache).resolve() == ROOT / ".dvc" / "cache"
    assert not (ROOT / "studies" / ".dvc").exists()


@pytest.mark.parametrize("file", STUDIES)
def test_a_study_depends_on_no_others_code(file):
    """Of the studies' folder: on its own files, and on what writes the parameters of two of them."""
    folder = (ROOT / file).parent
    own = folder if folder != ROOT else ROOT / "studies" / "default"
    deps = {(folder / d).resolve() for _, stage in stages(file) for d in stage["deps"] if "${" not in d}
    code = {d for d in deps if ROOT / "studies" in d.parents and (d.suffix == ".py" or any(d.glob("*.py")))}
    assert code and {d for d in code if own not in (d, *d.parents)} <= {ROOT / "studies" / "plan.py"}


@pytest.mark.parametrize("page", ["report", "paper", "theory", "claims"])
def test_a_page_depends_on_what_its_notebook_imports(page):
    folder = {"report": "", "paper": "studies/paper/", "theory": "studies/theory/", "claims": "studies/claims/"}[page]
    file = f"{folder}dvc.yaml"
    stage, folder = dict(stages(file))[page], (ROOT / file).parent
    cells = json.loads((ROOT / "notebooks" / f"{page}.ipynb").read_text())["cells"]
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {n.name for n in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{n.name}" for n in node.names)}
    modules = {n for n in names if n.split(".")[0] in ("sagd", "pipeline", "studies") and file_of(n).is_file()} - {
        "sagd"
    }
    missing = {m for m in needed(modules) if not covered(m, folder, stage["deps"])}
    assert missing == set()


def test_rooms_import_only_from_rooms_below():
    """The order of docs/extending.md: no circle, and an edit in a room reaches only what is above it."""
    order = ["errors", "runtime", "images", "noise", "operators", "formulations", "networks", "spaces", "training"]
    order += ["sampling", "colored", "previews", "oracle", "data", "metrics", "figures"]
    order += ["diffusers", "k_diffusion", "export", "cli"]
    place = {room: k for k, room in enumerate(order)}
    # The library's front door, and the command line that it starts.
    doors = {"sagd/__init__.py", "sagd/__main__.py"}
    wrong = set()
    for path in sorted((ROOT / "sagd").rglob("*.py")):
        rel = path.relative_to(ROOT)
        if str(rel) in doors:
            continue
        room = rel.parts[1].removesuffix(".py")
        module = ".".join(rel.with_suffix("").parts).removesuffix(".__init__")
        for other in imports(module):
            target = other.split(".")[1] if "." in other else "__init__"
            if target in place and place[target] > place[room]:
                wrong.add((str(rel), other))
            if other.startswith(("pipeline", "studies")) or (target == "__init__" and room != "cli"):
                wrong.add((str(rel), other))
    assert wrong == set()


def test_no_stage_imports_another_stage():
    scripts = {f"pipeline.{p.stem}" for p in (ROOT / "pipeline").glob("[a-z]*.py")}
    scripts |= {m for file in STUDIES for _, stage in stages(file) for m in re.findall(r"studies\.[\w.]+", str(stage))}
    # The first renders all pages, and an exported network is sampled as its stage samples it.
    shared = {"pipeline.report", "pipeline.sample"}
    wrong = {(s, other) for s in scripts for other in imports(s) & (scripts - shared) if other != s}
    assert wrong == set()


def test_nothing_asks_which_noise_or_formulation_it_has():
    """Protocols are true: no isinstance on them."""
    kinds = re.compile(r"isinstance\([^)]*\b(Spectrum|Varying|Diffusion|Flow|EDM|Noise|Formulation)\b")
    found = [
        f"{p.relative_to(ROOT)}: {line}"
        for folder in ("sagd", "pipeline")
        for p in (ROOT / folder).rglob("*.py")
        for line in p.read_text().splitlines()
        if kinds.search(line)
    ]
    # A user's own operator may return a spectrum or a tensor: that is a check of input.
    assert [f for f in found if not f.startswith("sagd/operators/__init__.py")] == []


def dvc(folder, *arguments):
    """What DVC prints; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the tree whose study DVC takes for done, as far as outputs of the stages before are not looked at."""
    folder = tmp_path_factory.mktemp("tree") / "copy"
    ignored = shutil.ignore_patterns(".venv", ".git", "artifacts", "scratch", "__pycache__", "tmp", "cache", ".*_cache")
    shutil.copytree(ROOT, folder, ignore=ignored)
    (folder / "dvc.lock").unlink(missing_ok=True)
    for run in (["git", "init", "-q"], ["git", "add", "-A"]):
        subprocess.run(run, cwd=folder, check=True, capture_output=True)
    for name, stage in stages("dvc.yaml"):
        for item in settings_of(folder, stage):
            deps = [d.replace("${item.s}", item) for d in stage["deps"] if d.startswith("artifacts")]
            for place in (*outs_of(stage, item), *deps):
                make(folder / place, name)
    dvc(folder, "commit", "--force")
    assert changed(folder) == set()
    return folder


def make(path, content):
    """A file, or a folder with a file, where a stage would have left one."""
    if path.exists():
        return
    if path.suffix:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    else:
        path.mkdir(parents=True)
        (path / "made").write_text(content)


def settings_of(folder, stage):
    params = YAML(typ="safe").load((folder / "params.yaml").read_text())
    return list(params["grid"]["settings"]) if "matrix" in stage else [""]


def outs_of(stage, item):
    for out in (*stage.get("outs", ()), *stage.get("metrics", ()), *stage.get("plots", ())):
        yield (next(iter(out)) if isinstance(out, dict) else out).replace("${item.s}", item)


def changed(folder):
    """Stages that DVC would run for an edit of their code, without their items: those whose dependencies differ."""
    with Repo(str(folder)) as repo:
        return {name.rpartition(":")[2].split("@")[0] for name in repo.status()}


EDITS = {
    "sagd/operators/power_law.py": {"corrupt", "encode", "export", "report"},  # it trains nothing
    "sagd/figures/study.py": {"report"},
    "notebooks/report.ipynb": {"report"},
    "pipeline/pages/results.py": {"report"},
    "studies/default/findings.py": {"report"},
    "studies/claims/decided.py": set(),
    "studies/paper/published.py": set(),
    "studies/theory/curves.py": set(),
    "studies/plan.py": set(),
    "sagd/metrics/kernel.py": {"evaluate", "grid_evaluate"},
    "sagd/metrics/extractors/dinov2_vitb14.py": {"evaluate", "grid_evaluate"},
    "sagd/training/loop.py": {"train", "grid_train"},
    "sagd/data/mnist.py": {"watch", "prepare"},
    "sagd/oracle/suggest.py": {"encode"},
    "sagd/networks/unet.py": {"train", "grid_train", "sample", "grid_sample", "evaluate", "grid_evaluate", "export"},
    "sagd/sampling.py": {"sample", "grid_sample", "export"},
    "extensions/operators/ring.py": {"encode"},
    "sagd/runtime/progress.py": set(),
    "pipeline/run/launch.py": set(),
    "sagd/cli/evaluate.py": set(),
}


@pytest.mark.slow
@pytest.mark.parametrize("edited", EDITS)
def test_an_edit_reruns_what_it_can_change_and_nothing_else(tree, edited):
    path = tree / edited
    before = path.read_bytes()
    try:
        path.write_bytes(before + (b"\n" if edited.endswith("ipynb") else b"\n# an edit\n"))
        assert changed(tree) == EDITS[edited]
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize("file", STUDIES)
def test_prepare_depends_on_the_list_of_the_users_files(file):
    found = dict(stages(file))
    (listed,) = outs_of(found["watch"], "")
    assert any(d.startswith(f"{listed}/") for d in found["prepare"]["deps"])


@pytest.mark.slow
def test_other_files_make_prepare_anew_and_where_there_are_some_they_are_listed_each_time(tree):
    listed, again = tree / "reports" / "watch" / "dataset.json", tree / "reports" / "watch.json"
    before, lock = {path: path.read_text() for path in (listed, again)}, (tree / "dvc.lock").read_text()
    try:
        listed.write_text('{"files": 1}')
        assert changed(tree) == {"watch", "prepare"}  # its output, and what it is made of
        again.write_text('{"again": NaN}')
        dvc(tree, "commit", "--force", "watch", "prepare")
        assert changed(tree) == {"watch"}
    finally:
        for path, content in {**before, tree / "dvc.lock": lock}.items():
            path.write_text(content)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "sample", "grid_train", "grid_sample"])
def test_what_was_trained_or_sampled_before_is_taken_from_the_cache(name, tmp_path):
    """The stage with its outputs as they are declared, whose command is another one."""
    stage = dict(stages("dvc.yaml"))[name]
    made = list(outs_of(stage, "iso"))
    for part in ("outs", "plots"):
        stage[part] = json.loads(json.dumps(stage[part]).replace("${item.s}", "iso"))
    files = [out if Path(out).suffix else f"{out}/made" for out in made]
    folders = " ".join(str(Path(f).parent) for f in files)
    stage |= {"cmd": f"mkdir -p {folders}; for f in {' '.join(files)}; do cp params.yaml $f; done", "params": ["seed"]}
    stage |= {"deps": ["given"]}
    stage.pop("matrix", None)
    YAML().dump({"stages": {name: stage}}, tmp_path / "dvc.yaml")
    (tmp_path / "given").touch()
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    dvc(tmp_path, "init", "--quiet")
    for seed in (0, 1, 0):
        (tmp_path / "params.yaml").write_text(f"seed: {seed}\n")
        said = dvc(tmp_path, "repro")
    assert "is cached" in said and "Running" not in said
    assert [(tmp_path / f).read_text() for f in files] == ["seed: 0\n"] * len(files)


def test_the_environment_writes_no_byte_code():
    """It would be part of the hashes of the dependencies of studies, which lie outside those projects."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    said = subprocess.run(
        [sys.executable, "-c", "import sys; print(sys.dont_write_bytecode)"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout == "True\n"
