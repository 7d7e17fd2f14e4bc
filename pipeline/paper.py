"""Render the paper's study: execute notebooks/paper.ipynb on what was run of it, in its profile."""

from pathlib import Path

from pipeline.console import stage
from pipeline.report import render


def main(params, options):
    render(Path("notebooks/paper.ipynb"), Path("reports/paper.html"), "sagd: the paper's study")


if __name__ == "__main__":
    stage(main, each=None)
