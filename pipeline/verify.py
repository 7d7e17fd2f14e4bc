"""Compare this run's numbers with those of the committed reference run, one by one; or make this run the reference."""

import argparse
import re
import sys

from sagd.errors import InputError
from studies.default import reproduced


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.verify", description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--accept", action="store_true", help=f"write this run's numbers to {reproduced.FILE}")
    what.add_argument("--brief", action="store_true", help="one line")
    options = parser.parse_args()
    try:
        if options.accept:
            reproduced.accept()
            return
        found = reproduced.compare()
    except (InputError, OSError) as error:
        sys.exit(f"verify: {error}")
    print(
        re.sub(r"\*\*|\[timings\.json\]|`", "", reproduced.sentence(found)).replace(
            "(timings.json)", "reports/timings.json"
        )
    )
    if found is None or options.brief:
        return
    print(f"reference: {'; '.join(found.reference)}\nthis run:  {'; '.join(found.here)}")
    for kind in ("within", "different"):
        for setting, name, ours, theirs in getattr(found, kind):
            print(f"{kind:<10} {setting:<14} {name:<40} {ours:12.6g}  reference {theirs:12.6g}")


if __name__ == "__main__":
    main()
