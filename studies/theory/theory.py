"""Render the theory, from studies/theory/: execute notebooks/theory.ipynb, which computes nearly all that it shows."""

import argparse
from pathlib import Path

from pipeline.params import Params
from pipeline.report import render
from pipeline.run.console import stage


def main(params: Params, options: argparse.Namespace) -> None:
    render(
        source=Path("../../notebooks/theory.ipynb"),
        page=Path("reports/theory.html"),
        title="sagd: the theory",
        executed=Path("artifacts/theory/theory.ipynb"),
    )


if __name__ == "__main__":
    stage(main, each=None)
