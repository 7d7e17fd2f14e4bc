"""docs/sharing.md, line by line: someone gives a study of seconds, a colleague fetches it."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from ruamel.yaml import YAML

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# A block says in its first line who runs it.
BLOCK = re.compile(r"^```shell\n# (?P<who>you|your colleague)\b.*\n(?P<code>(?s:.*?))^```$", re.M)
# An environment for `make` and `source`: that of the tests is on PATH.
PRELUDE = (
    'make() { mkdir -p .venv/bin; touch .venv/bin/activate; cp requirements.lock .venv/ready; command make "$@"; }\n'
)


class Person:
    """Runs commands in bash, where the last ones ended, with settings and a scratch folder of their own."""

    def __init__(self, home, name):
        home.mkdir()
        self.folder = home
        self.environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "GIT_CONFIG_GLOBAL": str(home / "gitconfig"),
            "DVC_GLOBAL_CONFIG_DIR": str(home / "dvc"),
            "DVC_SITE_CACHE_DIR": str(home / "site"),
            "DVC_NO_ANALYTICS": "1",
            "SAGD_SCRATCH": str(home / "scratch"),
            "OMP_NUM_THREADS": "1",
        }
        self.run(f"git config --global user.name {name} && git config --global user.email {name}@localhost")

    def run(self, code):
        """What the commands print; they must succeed."""
        done = subprocess.run(
            ["bash", "-ec", f"{PRELUDE}{code}\npwd"],
            cwd=self.folder, env=self.environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        *said, folder = done.stdout.splitlines()
        self.folder = Path(folder)
        return "\n".join(said)

    def files(self, folder="artifacts"):
        """The content of all files below a folder, by name."""
        found = sorted((self.folder / folder).rglob("*"))
        return {str(p.relative_to(self.folder / folder)): p.read_bytes() for p in found if p.is_file()}


@pytest.fixture(scope="module")
def you(tmp_path_factory):
    """Someone whose clone of the tree has a study and a cell of the paper's, which were run and are not committed."""
    you = Person(tmp_path_factory.mktemp("sharing") / "you", "you")
    clone = you.folder / "study"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in listed.stdout.split("\0"):
        if (ROOT / name).is_file() and name != "dvc.lock":
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name)
    yaml = YAML()
    params = yaml.load(clone / "params.yaml")
    params["dataset"]["held_out"] = 50
    params["evaluate"]["bootstrap"] = 2
    params["train"].update(steps=4, warmup=1)
    params["sample"].update(n=8, steps=2)
    params["grid"]["settings"] = {"iso": params["grid"]["settings"]["iso"]}
    yaml.dump(params, clone / "params.yaml")
    notebook = json.loads((clone / "notebooks" / "report.ipynb").read_text())
    notebook["cells"] = notebook["cells"][:1]  # what the report shows is tested elsewhere
    (clone / "notebooks" / "report.ipynb").write_text(json.dumps(notebook))
    you.folder = clone
    you.run("git init --quiet --initial-branch main && git add --all && git commit --quiet --message tree && dvc repro")
    you.run("python -m studies.plan smoke && cd studies/paper && dvc repro prepare@mnist && cd ../..")
    return you


@contextmanager
def serving(code):
    """The page's web server, on a free port of this machine; gives its address."""
    words = [sys.executable, "-u", *shlex.split(code.replace("8000", "0 --bind 127.0.0.1"))[1:]]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            yield re.search(r"http://[\d.:]+", server.stdout.readline())[0]
        finally:
            server.terminate()


def ran(person, said):
    """The stages that `dvc repro` ran; all others were said not to have changed."""
    found = re.findall(r"^Running stage '(.*)':$", said, re.M)
    skipped = re.findall(r"^Stage '(.*)' didn't change, skipping$", said, re.M)
    assert {*found, *skipped} == set(YAML(typ="safe").load(person.folder / "dvc.lock")["stages"])
    return found


def cloned(you, colleague, said):
    """Nothing runs, though there is no file; a new notebook needs none; without the option, all starts anew."""
    assert ran(colleague, said) == []
    assert colleague.files() == {}
    assert "not in cache" in colleague.run("dvc status")
    edited = colleague.run("echo >> notebooks/report.ipynb && dvc repro --allow-missing --dry")
    assert ran(colleague, edited) == ["report"]
    assert "Running stage 'prepare'" in colleague.run("git checkout --quiet . && dvc repro --dry prepare")


def pulled(you, colleague, said):
    """The files are the same, the pipeline takes them as done, and git has not heard of the remote."""
    assert ran(colleague, said) == []
    assert colleague.files() == you.files() != {}
    assert colleague.run("git status --porcelain") == ""
    assert colleague.run("git show HEAD:.dvc/config") == (ROOT / ".dvc" / "config").read_text().rstrip()


def experiment(you, colleague, said):
    """It is in the table with what it changed, and in the workspace as it was run."""
    row = next(line for line in said.splitlines() if "[alpha_m05]" in line)
    assert "-0.5 " in row
    kd = json.loads((you.folder / "reports" / "metrics.json").read_text())["kd_efficientnet_lite0"]
    assert f"{kd:.5g}" in row
    assert ran(colleague, said) == []
    assert colleague.files() == you.files()
    assert colleague.files("reports") == you.files("reports")
    assert "up to date" in colleague.run("git checkout --quiet . && dvc checkout --quiet && dvc status")


def one_folder(you, colleague, said):
    """The export of the commit: colleagues have that, and in your workspace is the experiment's."""
    assert you.files("artifacts/export") != colleague.files("newest") == colleague.files("artifacts/export") != {}


def version(you, colleague, said):
    assert colleague.files("focus") == colleague.files("newest") != {}


def paper(you, colleague, said):
    assert colleague.files("artifacts/smoke/prepare/mnist") == you.files("artifacts/smoke/prepare/mnist") != {}


# What must be true after the block with a command.
AFTER = {
    "dvc repro --allow-missing": cloned,
    "dvc pull\n": pulled,
    "dvc exp apply": experiment,
    "dvc get": one_folder,
    "dvc artifacts get": version,
    "dvc pull --allow-missing": paper,
}


def test_the_page_does_what_it_says(you, tmp_path):
    people = {"you": you, "your colleague": Person(tmp_path / "colleague", "colleague")}
    (tmp_path / "data").mkdir()
    text = (ROOT / "docs" / "sharing.md").read_text().replace("/data/", f"{tmp_path}/data/")
    servers = [b["code"] for b in BLOCK.finditer(text) if "http.server" in b["code"]]
    blocks = [(b["who"], b["code"]) for b in BLOCK.finditer(text) if b["code"] not in servers]
    assert len(servers) == 1
    assert len(blocks) + 1 == text.count("```shell\n")
    (tmp_path / "data" / "store").mkdir()
    with serving(servers[0]) as address:
        done = set()
        for who, code in blocks:
            said = people[who].run(code.replace("http://lab.example:8000", address))
            for command, check in AFTER.items():
                if command in re.sub(r" +# .*", "", code):
                    check(*people.values(), said)
                    done.add(command)
        assert done == set(AFTER)
