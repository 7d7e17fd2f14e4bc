"""Whether this run's numbers are those of the committed reference run: each identical, within the error, or different.

The reference is reports/reference.json, which `python -m pipeline.verify --accept` writes.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import params as parameters
from pipeline.pages import reading, results
from pipeline.params import Params, Setting
from pipeline.run import timings
from sagd.errors import InputError
from sagd.runtime.files import read_json, write_json

FILE = Path("reports", "reference.json")
ROUNDING = 1e-3
ERRORS = 2.0  # standard errors of the difference, up to which a number counts as within the error


@dataclass
class Comparison:
    """How a run's numbers compare with the reference's.

    Parameters
    ----------
    identical, within, different
        Numbers, as (setting, name, this run's mean over the seeds, the reference's).
    other
        Settings that were not compared: they are not in the reference, or are made in another way there.
    missing
        Settings of the reference that this run does not have.
    reference, here
        What each was run on: machines, with their versions.
    """

    identical: list[tuple[str, str, float, float]] = field(default_factory=list)
    within: list[tuple[str, str, float, float]] = field(default_factory=list)
    different: list[tuple[str, str, float, float]] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    reference: list[str] = field(default_factory=list)
    here: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many numbers were compared."""
        return len(self.identical) + len(self.within) + len(self.different)


def measured(params: Params) -> dict[str, dict]:
    """Of each setting what makes it, and every number of every seed."""
    found = {}
    for setting in params.drawn:
        of_seeds, result = reading.detail(setting), reading.summary(setting)
        numbers = {k: v for k, v in of_seeds["per_seed"].items() if not k.endswith("_se")}  # results, not their errors
        found[setting.title] = {
            "made": _made(setting),
            "seeds": of_seeds["seeds"],
            "numbers": numbers,
            "errors": {name: _error(name, numbers[name], result) for name in numbers},
        }
    return found


def _error(name: str, values: list[float], result: dict) -> float:
    """Over seeds and samples; of floors, which have neither, a thousandth, for what another processor rounds."""
    found = [result.get(f"{name}{ending}") or 0.0 for ending in ("_se", "_sample_se")]
    return math.hypot(*found) or ROUNDING * abs(sum(values)) / len(values)


def _made(setting: Setting) -> dict:
    """What defines a setting's numbers, but for the code."""
    return {
        "noise": results.noise_of(setting).to_dict(),
        "corrupt": setting.corrupt.model_dump(),
        "encode": setting.encode.model_dump(),
        "train": setting.train.model_dump(exclude={"repeats", "snapshots"}),
        "sample": setting.sample.model_dump(),
        "evaluate": setting.evaluate.model_dump(),
        "data": read_json(setting.prepared.record)["sha256"],
    }


def accept() -> None:
    """Make this run the reference."""
    write_json(FILE, {"machines": _machines(), "settings": measured(parameters.load())})


def compare() -> Comparison | None:
    """This run beside the reference; None where there is no reference."""
    if not FILE.is_file():
        return None
    here = measured(parameters.load())
    with reading.of(FILE):
        return _beside(read_json(FILE), here)


def _beside(reference: dict, here: dict[str, dict]) -> Comparison:
    found = Comparison(reference=reference["machines"], here=_machines())
    found.missing = [title for title in reference["settings"] if title not in here]
    for title, ours in here.items():
        theirs = reference["settings"].get(title)
        if theirs is None or any(ours[key] != theirs[key] for key in ("made", "seeds")):
            found.other.append(title)
            continue
        for name in ours["numbers"].keys() & theirs["numbers"].keys():
            a, b = ours["numbers"][name], theirs["numbers"][name]
            means = (sum(a) / len(a), sum(b) / len(b))
            error = math.hypot(ours["errors"][name], theirs["errors"][name])
            within = abs(means[0] - means[1]) <= ERRORS * error
            kind = found.identical if a == b else found.within if within else found.different
            kind.append((title, name, *means))
    return found


def sentence(found: Comparison | None) -> str:
    """The comparison in words, the same on every machine where all numbers are identical."""
    if found is None:
        return "There is no reference run to compare with."
    said = []
    if found.count:
        whose = f"of the committed reference run ({'; '.join(found.reference)})"
        if len(found.identical) == found.count:
            said.append(f"**Reproduced**: all {found.count} numbers are identical to those {whose}.")
        else:
            verdict = "Reproduced within the errors" if not found.different else "Not all reproduced"
            said.append(
                f"**{verdict}**: of {found.count} numbers, {len(found.identical)} are identical to those {whose}, "
                f"{len(found.within)} differ by no more than {ERRORS:g} standard errors of the difference, "
                f"{len(found.different)} by more (`make verify` lists them); this run's machine is in "
                "[timings.json](timings.json)."
            )
    if found.other:
        said.append(f"Made in another way than in the reference, and not compared: {', '.join(found.other)}.")
    if found.missing:
        said.append(f"In the reference alone: {', '.join(found.missing)}.")
    return " ".join(said)


def _machines() -> list[str]:
    """What the networks were trained on, with the versions, each once."""
    told = []
    for noted in timings.read().values():
        facts = {key: value for key, value in noted.items() if key != "images_per_second"}
        versions = [f"{key} {value}" for key, value in facts.items() if key not in ("device", "cpu")]
        told.append(", ".join([*(facts[key] for key in ("cpu", "device") if key in facts), *versions]))
    if not told:
        raise InputError(f"{timings.FILE} is missing: run the study first")
    return sorted(set(told))
