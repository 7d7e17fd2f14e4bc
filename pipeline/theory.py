"""Render the theory: execute notebooks/theory.ipynb, which computes nearly all that it shows."""

from pathlib import Path

from pipeline.console import stage
from pipeline.report import render


def main(params, options):
    render(Path("notebooks/theory.ipynb"), Path("reports/theory.html"), "sagd: the theory")


if __name__ == "__main__":
    stage(main, each=None)
