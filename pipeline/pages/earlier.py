"""Results in reports/ that are not of the present code or parameters: pages say so, until they are measured anew.

Those of other parameters are left out. Of those that an earlier version measured, and that this one does not give,
``reports/PROFILE/earlier.json`` (of a study without profiles ``reports/grid/earlier.json``) is written by hand when a
change of the code changes numbers. It names the results by their content, so a new measurement is never taken for an
old one.
"""

from pathlib import Path

from pipeline.params import Params
from sagd.errors import InputError
from sagd.runtime.download import digest
from sagd.runtime.files import read_json


def results(params: Params) -> dict[str, str]:
    """The titles of the settings whose results are an earlier version's, to what tells them: ``version 0.1.0``."""
    noted, found = _noted(params).get("results", {}), {}
    for setting in params.drawn:
        entry, file = noted.get(setting.title), setting.report("evaluate", "seeds.json")
        if entry and params.measured(setting) and digest(file) == entry["sha256"]:
            found[setting.title] = entry["measured"]
    return found


def note(params: Params) -> str:
    """Which results are left out, which are an earlier version's, and how that differs, in Markdown; or empty."""
    earlier, noted, others = results(params), _noted(params), left_out(params)
    if not earlier:
        return others
    run = sum(params.measured(setting) for setting in params.drawn)
    return (
        f"**Not measured with the present code:** {len(earlier)} of the {run} results of trained networks on this page "
        f"were measured with version {noted['version']}. {noted['differs']} The numbers will change when they are "
        f"measured anew ([CHANGELOG.md](../../../CHANGELOG.md)). {others}"
    ).rstrip()


def left_out(params: Params) -> str:
    """Which results are of other parameters, or damaged, in Markdown; empty if none is."""
    found: dict[str, list[str]] = {}
    for setting in params.drawn:
        if setting.report("evaluate", "seeds.json").is_file():
            try:
                why = "" if params.measured(setting) else "their parameters were others"
            except InputError:
                why = "they can't be read"
            found.setdefault(why, []).append(setting.title)
    return " ".join(
        f"**Left out:** results of {len(titles)} settings ({', '.join(titles[:3])}{', ...' if titles[3:] else ''}), "
        f"as {why}."
        for why, titles in found.items() if why
    )  # fmt: skip


def _noted(params: Params) -> dict:
    file = Path("reports", params.profile or "grid", "earlier.json")
    return read_json(file) if file.is_file() else {}
