"""Check params.yaml, all of it: every stage does so before it begins."""

import argparse

from pipeline.params import Params
from pipeline.params.load import file
from pipeline.run.console import stage


def main(params: Params, options: argparse.Namespace) -> None:
    absent = [set(s.absent) if params.dataset_of(s) else {*s.absent, "dataset"} for s in params.drawn]
    whole = sum(not sections for sections in absent)
    if whole:
        print(f"check: the parameters of {whole} settings are valid, and there is room for what was chosen")
    if lacking := set().union(*absent):
        said = f"{len(absent) - whole} settings are not whole, as {file()} has no {', '.join(sorted(lacking))}"
        print(f"check: {said}: the values that are there are allowed")


if __name__ == "__main__":
    stage(main)
