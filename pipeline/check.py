"""Check params.yaml, all of it: every stage does so before it begins."""

import argparse

from pipeline.params import Params
from pipeline.params.load import file
from pipeline.run.console import stage


def main(params: Params, options: argparse.Namespace) -> None:
    absent = [set(s.absent) if params.dataset_of(s) else {*s.absent, "dataset"} for s in params.drawn]
    whole = sum(not sections for sections in absent)
    print(f"check: the parameters of {whole} settings are valid, and there is room for what was chosen")
    if lacking := set().union(*absent):
        said = ", ".join(sorted({"seeds": "seed"}.get(name, name) for name in lacking))
        print(f"check: of {len(absent) - whole} more, what {file()} says is valid; it says nothing of {said}")


if __name__ == "__main__":
    stage(main)
