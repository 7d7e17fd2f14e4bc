"""README and docs/ keep their promises: code runs, commands exist, links resolve, numbers are those of the report."""

import html
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md")), ROOT / "extensions" / "README.md"]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
MAKEFILE = (ROOT / "Makefile").read_text()
# A comment above a block gives small sizes, such as <!-- test: STEPS=5 -->, and says whether it is slow.
BLOCK = re.compile(r"(?:<!-- test: (?P<marks>[^>]*) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.M | re.S)


def blocks(*languages):
    """The code blocks of all pages in some languages, as parameters of a test: (code, sizes)."""
    return list(_blocks(languages))


def _blocks(languages):
    for page in PAGES:
        text = page.read_text()
        for found in BLOCK.finditer(text):
            if found["language"] in languages:
                marks = (found["marks"] or "").split()
                line = text[: found.start("code")].count("\n") + 1
                slow = [pytest.mark.slow] if "slow" in marks else []
                sizes = dict(mark.split("=") for mark in marks if "=" in mark)
                yield pytest.param(found["code"], sizes, id=f"{page.relative_to(ROOT)}:{line}", marks=slow)


def python(*arguments, folder):
    """Run Python in a folder, on one thread, without what the user has in the scratch folder."""
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "SAGD_SCRATCH": str(folder / "scratch")}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=folder, env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("code", "sizes"), blocks("python"))
def test_python_code_runs(code, sizes, tmp_path):
    for name, value in sizes.items():
        code, count = re.subn(rf"^{name} = .*$", f"{name} = {value}", code, flags=re.M)
        assert count == 1, f"there is no {name} to make smaller"
    (tmp_path / "block.py").write_text(code)
    python("block.py", folder=tmp_path)


def test_the_first_lines_need_no_extras(tmp_path):
    """README's first block of Python imports nothing that only an extra brings."""
    code = next(found["code"] for found in BLOCK.finditer(README.read_text()) if found["language"] == "python")
    extras = ["diffusers", "transformers", "torchvision", "PIL", "scipy", "pandas", "matplotlib", "pydantic"]
    lines = [line for line in code.splitlines() if line.startswith(("import ", "from "))]
    (tmp_path / "block.py").write_text("\n".join([*lines, f"import sys; print(set({extras}) & set(sys.modules))"]))
    assert python("block.py", folder=tmp_path).strip() == "set()"


def commands(code):
    """The commands of a block, each with its folder and the words after any variables: (folder, words)."""
    folder = ROOT
    for line in code.replace("\\\n", " ").splitlines():
        for part in line.split("&&"):
            words = shlex.split(part, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                words = words[1:]
            if words[:1] == ["cd"]:
                folder = (folder / words[1]).resolve()
                assert folder.is_dir(), f"there is no folder {words[1]}"
            elif words:
                yield folder, words


@pytest.mark.parametrize(("code", "sizes"), blocks("sh", "bash", "console"))
def test_commands_exist(code, sizes, tmp_path, monkeypatch):
    """Each command of a block is one that there is, with options that it has."""
    checks = {"make": make, "dvc": dvc, "python": python_command, "pip": pip}
    for folder, words in commands(code):
        if words[0] in ("export", "source"):
            continue
        assert words[0] in checks, f"nothing here checks {words[0]}"
        checks[words[0]](folder, words[1:], tmp_path, monkeypatch, code)


def make(folder, words, *_):
    for word in words:
        name, assigned, _ = word.partition("=")
        wanted = rf"^{name} \?= " if assigned else rf"^{name}:"
        assert re.search(wanted, MAKEFILE, re.M), f"make knows no {word}"


def dvc(folder, words, tmp_path, monkeypatch, code):
    from dvc.cli import parse_args

    options = parse_args(words)
    if words[:2] == ["exp", "run"]:
        for content in changed(options.set_param or [], tmp_path):
            check_params(content, tmp_path, monkeypatch)
    for target in getattr(options, "targets", None) or []:
        if words[0] == "repro":
            assert target in stages(folder, code), f"{folder.name} has no stage {target}"


def changed(overrides, tmp_path):
    """params.yaml, as `dvc exp run -S` changes it: once for each value of a sweep."""
    from dvc.utils.hydra import apply_overrides, get_hydra_sweeps

    for sweep in get_hydra_sweeps({"params.yaml": overrides}) if overrides else []:
        copy = tmp_path / "changed.yaml"
        shutil.copy(ROOT / "params.yaml", copy)
        apply_overrides(copy, sweep["params.yaml"])
        yield copy.read_text()


def check_params(content, folder, monkeypatch):
    """Every section is valid, and so is every setting of the grid."""
    from pipeline import params
    from pipeline.params.sections import SECTIONS

    (folder / "params.yaml").write_text(content)
    monkeypatch.chdir(folder)
    found = params.load()
    for name in SECTIONS:
        found.section(name)
    for setting in found.all_settings:
        size = found.section("dataset").size
        setting.train.network((3, size, size), 0, 0)


def stages(folder, code):
    """The stages of a folder's dvc.yaml; below studies/paper, those of the profile that the block asks for."""
    from studies import plan

    found = YAML(typ="safe").load((folder / "dvc.yaml").read_text())["stages"]
    if folder.name not in ("paper", "claims"):
        return set(found)
    profile = re.search(r"studies\.plan (\w+)", code)
    content = plan.parameters(plan.DECIDE if folder.name == "claims" else profile[1] if profile else "quick")
    cells = {f"{stage}@{name}" for stage in ("train", "measure") for name in content["stages"]}
    cells |= {f"prepare@{name}" for name in content["datasets"]} | {f"encode@{name}" for name in content["groups"]}
    return {name for name, stage in found.items() if "foreach" not in stage} | cells


def python_command(folder, words, tmp_path, monkeypatch, code):
    if words[0] != "-m":
        assert Path(folder, words[0]).is_file(), f"there is no {words[0]}"
    elif words[1] == "sagd":
        sagd(words[2:], monkeypatch)
    else:
        module = ROOT / Path(*words[1].split(".")).with_suffix(".py")
        assert module.is_file(), f"there is no module {words[1]}"
        options = [word for word in words[2:] if word.startswith("--")]
        said = python("-m", words[1], "--help", folder=tmp_path) if words[2:] else ""
        assert not [option for option in options if option not in said]


def sagd(words, monkeypatch):
    """The command line of the library takes these words."""
    import importlib

    from sagd import cli

    assert words[0] in cli.COMMANDS
    taken = []
    monkeypatch.setattr(importlib.import_module(f"sagd.cli.{words[0]}"), "run", taken.append)
    cli.main(words)
    assert taken


def pip(folder, words, *_):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extras in re.findall(r"\[(.*?)\]", " ".join(words)):
        assert set(extras.split(",")) <= set(project["optional-dependencies"])


@pytest.mark.slow
def test_data_are_described_as_said(two_folders, tmp_path):
    """The commands that need a folder of pictures and nothing else run on one."""
    code = (ROOT / "docs" / "images.md").read_text()
    asked = [line for line in code.splitlines() if line.startswith("python -m sagd") and "--samples" not in line]
    assert len(asked) == 2
    for line in asked:
        words = shlex.split(line.replace("/data/pictures", str(two_folders[0])))
        assert python(*words[1:], folder=tmp_path)
    assert (tmp_path / "spectrum.png").is_file()


@pytest.mark.parametrize(("code", "sizes"), blocks("yaml"))
def test_params_are_valid(code, sizes, tmp_path, monkeypatch):
    check_params(code, tmp_path, monkeypatch)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    local = [link for link in links if not link.startswith(("http:", "https:"))]
    assert [link for link in local if not (page.parent / link).exists()] == []
    assert [link for link in local if "artifacts/" in link] == []  # not in git


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_keys_are_in_the_schema(page):
    """`train.steps` in a page is a key of params.yaml, or something that a noise does."""
    from pipeline.params.sections import SECTIONS, Grid
    from sagd import Spectrum

    sections = SECTIONS | {"grid": Grid}
    named = re.findall(rf"`({'|'.join(sections)})\.([a-z_]+)(?:=[^`]*)?`", page.read_text())
    unknown = {f"{s}.{key}" for s, key in named if key not in sections[s].model_fields and not hasattr(Spectrum, key)}
    assert unknown == set()


def test_the_readme_is_short():
    assert len(README.read_text().split()) <= 1500


def test_numbers_are_those_of_the_committed_report():
    done = subprocess.run(
        ["git", "show", "HEAD:reports/index.html"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    said = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", done.stdout)))
    numbers = re.findall(r"-?[\d.]+ ± [\d.]*\d", (ROOT / "docs" / "results.md").read_text())
    assert len(numbers) >= 6
    assert [number for number in numbers if number not in said] == []


@pytest.mark.parametrize("page", [README, ROOT / "docs" / "results.md"], ids=lambda page: page.name)
def test_the_verdicts_are_those_of_what_was_measured(page, monkeypatch):
    """If this fails: make docs."""
    from studies.claims.summary import with_tables

    monkeypatch.chdir(ROOT / "studies" / "claims")
    assert with_tables(page.read_text()) == page.read_text()
    table = page.read_text().partition("<!-- verdicts: ")[2].partition("<!-- end of verdicts -->")[0]
    assert len(re.findall(r"\| (?:supported|holds in part|contradicted|equivalent|undecided|not run)\b", table)) >= 8


def test_advice_quotes_what_was_measured(monkeypatch):
    """Each percentage with an interval that docs/results.md quotes is that of a contrast."""
    from pipeline import params
    from studies.claims import answers, decided

    monkeypatch.chdir(ROOT / "studies" / "claims")
    found = decided.answers(decided.Results(params.load()), decided.written())
    said = "; ".join(answers.told(a) for its in found.values() for a in its.values())
    text = " ".join((ROOT / "docs" / "results.md").read_text().split())
    quoted = re.findall(r"[+-][\d.]+ % \([+-][\d.]+ to [+-][\d.]+ %\)", text)
    assert len(quoted) >= 3 and [q for q in quoted if q not in said] == []


def test_the_command_and_the_stage_quote_what_was_measured(monkeypatch):
    """What `sagd suggest` says of its advice, and where `noise.alpha: auto` warns, is what the contrasts found."""
    from pipeline import encode, params
    from sagd.cli.suggest import MEASURED
    from studies.claims import answers, decided

    monkeypatch.chdir(ROOT / "studies" / "claims")
    found = decided.answers(decided.Results(params.load()), decided.written())
    right, slope = found["tilt"]["right_start"], found["spectrum"]["distance"]
    assert (right.verdict, slope.verdict) == ("equivalent", "supported") and slope.decision.mean < 0
    assert answers.told(right) in MEASURED and answers.told(slope) in MEASURED
    assert encode.WORSE == (min(slope.contrast.over.values()), 0.0)
    assert found["tilt"]["listing"].verdict == "contradicted"  # -0.06, with the listing's zero frequency


def test_the_table_of_parameters_is_fresh():
    """If this fails: make docs."""
    from pipeline.params.table import page

    assert (ROOT / "docs" / "parameters.md").read_text() == page()


def test_examples_are_short():
    longest = {"train_unconditional.py": 120}
    assert len(EXAMPLES) == 5
    assert [p.name for p in EXAMPLES if len(p.read_text().splitlines()) > longest.get(p.name, 60)] == []


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_run(path, tmp_path):
    few = ("--images", 12) if path.stem == "measure_folders" else ("--steps", 5)
    places = {"plain_loop": "out.npy", "measure_folders": "out", "train_unconditional": "out"}
    folder_or_file = places.get(path.stem, "out.png")
    assert python(path, *few, "--out", folder_or_file, folder=tmp_path)
    assert (tmp_path / folder_or_file).exists()
