"""Write studies/paper/params.json: every setting of the paper's study, in a profile; or that of studies/claims.

JSON, because DVC reads it for each stage. A profile (studies/paper/profiles/NAME.yaml) says how each setting is
trained, sampled and measured (``groups``: what differs in one of them), and how many of them a DVC stage takes; what
the settings are is said here, in the order of the paper.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError

from sagd.errors import InputError
from sagd.runtime.files import read_bytes, read_json, write_json

PAPER, CLAIMS = Path(__file__).parent / "paper", Path(__file__).parent / "claims"
DECIDE = "decide"  # the profile of a study of its own, in studies/claims
ALPHAS = (-0.08, -0.06, -0.04, -0.02, -0.01, -0.001, 0.001, 0.01, 0.02, 0.04, 0.06, 0.08)  # Table 1, F.1, F.2
IMAGENET_ALPHAS = (-0.06, -0.04, -0.02, -0.01, -0.001, 0.01)  # Fig. 4
GAMMAS = (0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9)  # the workshop paper's Table 1; 0.5 is isotropic
BANDS = tuple((round(0.1 * k, 1), round(0.1 * (k + 1), 1)) for k in range(1, 9))  # Table 2
# At alpha -0.06 the paper's listing gives the zero frequency 3.73 times the rms of the rest: as offset noise of this
# strength, divided by the resolution; and without normalisation the noise has this rms
# (tests/pipeline/test_published.py).
LISTED_BOOST, UNNORMALIZED = 3.6, 1.0665
LOW, HIGH = (0.0, 0.3), (0.3, 1.0)  # the corruptions of Fig. 3 and of the workshop paper's Fig. 3


def settings(audit_size: int = 32) -> dict[str, dict]:
    """Every setting of the study: its name to what `pipeline.params.sections.GridSetting` takes.

    Parameters
    ----------
    audit_size
        Resolution of the data set ``audit``: the boost of the mean that the paper's listing gives depends on it.
    """
    found: dict[str, dict] = {}

    def add(
        group: str, name: str, noise: dict, dataset: str | None = None, band: tuple | None = None, **more: Any
    ) -> None:
        corrupt = {"corrupt": {"band": list(band), **more.pop("corrupt", {})}} if band else {}
        found[f"{group}_{name}"] = {"dataset": dataset or group, "group": group, "noise": noise, **corrupt, **more}

    def over_alpha(group: str, alphas: tuple, **data: Any) -> None:
        add(group, "iso", {"operator": "isotropic"}, **data)
        for alpha in alphas:
            add(group, code(alpha), {"operator": "power_law", "alpha": alpha}, **data)

    def over_gamma(group: str, **data: Any) -> None:
        for gamma in GAMMAS:
            add(group, f"g{digits(gamma)}", {"operator": "two_band", "gamma_low": gamma}, **data)

    for dataset in ("mnist", "cifar10", "quickdraw", "wikiart", "ffhq"):
        over_alpha(dataset, ALPHAS)
        if dataset != "ffhq":
            over_gamma(dataset)
    over_alpha("imagenet", IMAGENET_ALPHAS)
    add("celeba", "iso", {"operator": "isotropic"})
    over_gamma("celeba")
    over_alpha("cifar10_low", ALPHAS, dataset="cifar10", band=LOW)
    add("cifar10_high", "iso", {"operator": "isotropic"}, dataset="cifar10", band=HIGH)
    over_gamma("cifar10_high", dataset="cifar10", band=HIGH)
    for low, high in BANDS:
        name = f"{digits(low)}_{digits(high)}"
        left_out = {"operator": "two_band", "gamma_low": 0.5, "low": [0.0, low], "high": [high, 1.0]}
        add("omission", f"{name}_iso", {"operator": "isotropic"}, dataset="mnist", band=(low, high))
        add("omission", f"{name}_bpm", left_out, dataset="mnist", band=(low, high))

    # The audits (studies/paper/audits.py) have a data set of their own: a small profile can give them a smaller one.
    isotropic: dict = {"operator": "isotropic"}
    tilt: dict = {"operator": "power_law", "alpha": -0.06}
    mixed, gap = {"operator": "two_band", "gamma_low": 0.3}, {"low": [0.0, 0.4], "high": [0.5, 1.0]}
    omitting = {"operator": "two_band", "gamma_low": 0.5, **gap}
    for name, noise in {
        "iso": isotropic,
        "m006": tilt,
        "m006_floor": tilt | {"dc": "floor"},
        "m006_linspace": tilt | {"grid": "linspace"},
        "m006_sample": tilt | {"normalize": "sample"},
        "m006_none": tilt | {"normalize": "none"},
        "boost": {"operator": "offset", "strength": round(LISTED_BOOST / audit_size, 4)},
        "offset": {"operator": "offset", "strength": 0.1, "normalize": "none"},
        "energy": {"operator": "isotropic", "gain": UNNORMALIZED, "normalize": "none"},
        "g03": mixed,
        "g03_per_band": mixed | {"bands": "per_band"},
        "g05_per_band": {"operator": "two_band", "gamma_low": 0.5, "bands": "per_band"},
    }.items():
        add("audit", name, noise)
    for units in ("corner", "nyquist", "cycles"):
        shared: dict[str, Any] = {"band": (0.4, 0.5), "corrupt": {"units": units}}
        add("audit", f"{units}_iso", isotropic, **shared)
        # The Nyquist radius does not reach into the corners, which must not be left out as well.
        reach: dict = {"high": [0.5, 1.5]} if units == "nyquist" else {}
        add("audit", f"{units}_bpm", omitting | {"units": units} | reach, **shared)
    add("audit", "filtered_data", isotropic, band=(0.4, 0.5), corrupt={"filtered": True})
    add("audit", "filtered_samples", isotropic, band=(0.4, 0.5), sample={"filtered": True})
    # The projected loss sees nothing of the band: audit_corner_bpm stands for every strength of the corruption.
    literal: dict[str, Any] = {"band": (0.4, 0.5), "train": {"project": False}}
    add("audit", "literal_bpm", omitting, **literal)
    for name, corrupt in {"half": {"gamma": 0.5}, "bare": {"normalize": "none"}}.items():
        add("audit", f"{name}_iso", isotropic, band=(0.4, 0.5), corrupt=corrupt)
        add("audit", f"{name}_literal", omitting, **literal, corrupt=corrupt)
    return found


def decided() -> dict[str, dict]:
    """The settings of the study `decide`: the arms that studies/claims/contrasts.yaml writes down, group by group.

    A group with ``bands`` has each of its arms for each band, whose edges stand for LOW and HIGH; ``common`` is what
    its settings share.
    """
    found: dict[str, dict] = {}
    for group, described in _yaml(CLAIMS / "contrasts.yaml")["arms"].items():
        common = {"dataset": "mnist", "group": group, **described.get("common", {})}
        common |= {"seeds": described["seeds"]} if "seeds" in described else {}
        for low, high in described.get("bands", [(None, None)]):
            place = "" if low is None else f"{digits(low)}_{digits(high)}_"
            for name, setting in described["settings"].items():
                found[f"{group}_{place}{name}"] = _with_edges(common | setting, {"LOW": low, "HIGH": high})
    return found


def _with_edges(content: Any, edges: dict[str, float]) -> Any:
    if isinstance(content, dict):
        return {key: _with_edges(value, edges) for key, value in content.items()}
    if isinstance(content, list):
        return [_with_edges(value, edges) for value in content]
    return edges.get(content, content) if isinstance(content, str) else content


def _yaml(path: Path) -> Any:
    return YAML(typ="safe").load(read_bytes(path))


def code(alpha: float) -> str:
    """-0.06 as m006: a name has no dots and no signs."""
    return ("m" if alpha < 0 else "p") + digits(abs(alpha))


def digits(value: float) -> str:
    return f"{value:g}".replace(".", "")


def stages(per: str, chosen: dict[str, dict]) -> dict:
    """What DVC makes stages of: for each the data set, the folder that it fills, and the key of its settings."""
    if per == "group":
        groups = {s["group"]: s["dataset"] for s in chosen.values()}
        return {g: {"dataset": d, "place": g, "settings": "grid.settings"} for g, d in groups.items()}
    return {
        name: {"dataset": s["dataset"], "place": f"{s['group']}/{name}", "settings": f"grid.settings.{name}"}
        for name, s in chosen.items()
    }


def place_of(profile: str) -> Path:
    """The folder of the study that a profile is of."""
    return CLAIMS if profile == DECIDE else PAPER


def parameters(profile: str) -> dict:
    """The contents of params.json in a profile."""
    source = PAPER / "profiles" / f"{profile}.yaml"
    if not source.is_file():
        names = ", ".join(sorted(p.stem for p in source.parent.glob("*.yaml")))
        raise InputError(f"no profile {profile!r} in studies/paper/profiles; there are {names}")
    try:
        content = _yaml(source)
        per = content.pop("stage")
    except (YAMLError, AttributeError, KeyError) as error:
        said = " ".join(str(error).split())
        raise InputError(f"{source}: it must be a mapping, with stage and grid ({said})") from None
    datasets = content.pop("datasets", {})
    if profile == DECIDE:
        chosen = decided()
    else:
        datasets = _yaml(PAPER / "datasets.yaml") | datasets
        chosen = settings(datasets["audit"]["size"])
    changed = content.pop("groups", {})
    for setting in chosen.values():
        for section, changes in changed.get(setting["group"], {}).items():
            setting[section] = {**changes, **setting.get(section, {})}
    groups = {s["group"]: {"dataset": s["dataset"]} for s in chosen.values()}
    made = {"datasets": datasets, "groups": groups, "stages": stages(per, chosen)}
    return {"profile": profile, **made, **content, "grid": {"variants": {}, "settings": chosen}}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m studies.plan", description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("profile", nargs="?", help="smoke, quick, gpu or paper; or decide")
    which.add_argument(
        "--stages", metavar="PATTERN", help="print the stages whose names match, each after its data set and its group"
    )
    parser.add_argument("--study", choices=["paper", DECIDE], default="paper", help="whose stages are printed")
    options = parser.parse_args(arguments)
    try:
        if options.profile:
            write_json(place_of(options.profile) / "params.json", parameters(options.profile))
            return
        try:
            pattern = re.compile(options.stages)
        except re.error as error:
            raise InputError(f"the pattern {options.stages!r} is no regular expression: {error}") from None
        for name, stage in read_json(place_of(options.study) / "params.json")["stages"].items():
            if pattern.search(name):
                print(stage["dataset"], stage["place"].split("/")[0], name)
    except InputError as error:
        sys.exit(f"plan: {error}")


if __name__ == "__main__":
    main()
