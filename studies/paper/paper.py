"""Render the paper's study, from studies/paper/: execute notebooks/paper.ipynb on what was run of it in its profile."""

import argparse
from pathlib import Path

from pipeline.params import Params
from pipeline.report import render
from pipeline.run.console import stage


def main(params: Params, options: argparse.Namespace) -> None:
    render(
        source=Path("../../notebooks/paper.ipynb"),
        page=Path("reports/paper.html"),
        title="sagd: the paper's study",
        executed=Path("artifacts", params.profile or "", "paper", "paper.ipynb"),
    )


if __name__ == "__main__":
    stage(main, each=None)
