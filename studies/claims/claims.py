"""Render the page of the claims, from studies/claims/: execute notebooks/claims.ipynb on what was run."""

import argparse
from pathlib import Path

from pipeline.params import Params
from pipeline.report import render
from pipeline.run.console import stage


def main(params: Params, options: argparse.Namespace) -> None:
    render(
        source=Path("../../notebooks/claims.ipynb"),
        page=Path("reports/claims.html"),
        title="sagd: the paper's claims, decided",
        executed=Path("artifacts", params.profile or "", "claims", "claims.ipynb"),
    )


if __name__ == "__main__":
    stage(main, each=None)
