"""params.yaml, read once; the settings that it describes, and where their files are."""

import argparse
import json
import os
import reprlib
import shutil
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML, YAMLError

from pipeline.params.sections import (
    SECTIONS,
    Dataset,
    Datasets,
    Grid,
    GridSetting,
    Profile,
    Sample,
    Section,
    Seeded,
    Train,
    keyed,
)
from pipeline.params.setting import Prepared, Setting
from sagd.errors import InputError, plainly, shortened
from sagd.images import tell
from sagd.runtime.files import read_json, regular

LARGEST = 4 << 20  # bytes of a file of parameters; the paper's, with 171 settings, has a fortieth of it
DEEPEST = 16  # mappings and lists inside each other
MOST = 10**6  # values, those of aliases counted where they are used
OURS = ("noise", "corrupt", "encode", "train", "sample", "evaluate")  # sections of a setting
ITS_OWN = ("noise", "corrupt")  # all else is the study's, unless a setting changes some of its keys
GRID = "grid.settings"
# Keys that affect results only by rounding; `repeats` is told by the seeds.
ASIDE = {
    "dataset": {"name", "path", "channels"},
    "encode": {"on_the_fly", "per_shard", "batch_size"},
    "train": {"repeats", "micro_batch_size", "compile"},
    "sample": {"batch_size"},
    "evaluate": {"metrics", "bootstrap"},
}
FILES = (Path("params.yaml"), Path("params.json"))  # the second is the paper's study: written by a program, read fast


@dataclass(frozen=True)
class Params:
    """params.yaml, read once."""

    raw: dict

    @property
    def profile(self) -> str | None:
        """The name of the profile that the file was made from, if it was (`studies.plan`)."""
        return _parse(Profile, {"profile": self.raw.get("profile")}, "").profile

    def dataset(self, name: str | None) -> Dataset:
        """An entry of `datasets`, or (None) the one `dataset`."""
        if name is None:
            return self.section("dataset")
        if name not in self.datasets:
            known = ", ".join(self.datasets) or "none"
            raise InputError(f"{file()}: no data set {_short(name)} in datasets; there are {known}")
        return self.datasets[name]

    def dataset_of(self, setting: Setting) -> Dataset | None:
        """What a setting is trained on; None if the file does not say."""
        name = setting.prepared.name
        if name in self.datasets:
            return self.datasets[name]
        return self.section("dataset") if "dataset" in self.raw else None

    def made(self, setting: Setting) -> dict[str, Any]:
        """What makes the numbers of a setting, but for the code: `evaluate` writes it beside them."""
        return {"seeds": setting.seeds} | {name: _made(name, part) for name, part in self._sections(setting).items()}

    def measured(self, setting: Setting) -> bool:
        """Whether a setting was measured, and that with the parameters that the file has now."""
        file = setting.report("evaluate", "seeds.json")
        made = read_json(file).get("made", {}) if file.is_file() else {}
        if not isinstance(made, dict):
            raise InputError(f"{file}: made is {shortened(repr(made), 60)}; run the stage evaluate again")
        return made.get("seeds") == setting.seeds and all(
            _same(name, part, made.get(name, {})) for name, part in self._sections(setting).items()
        )

    def _sections(self, setting: Setting) -> dict[str, Section]:
        dataset = self.dataset_of(setting)
        return ({"dataset": dataset} if dataset else {}) | {name: setting.section(name) for name in OURS}

    def prepared(self, name: str | None) -> Prepared:
        """Where `prepare` puts a data set."""
        return Prepared(Path("artifacts", self.profile or "", "prepare", name or ""))

    def section(self, name: str) -> Any:
        """A checked top-level section, such as `dataset`; ``seeds`` are those of a setting that has none of its own."""
        return (
            self._seeds(self.section("train")) if name == "seeds" else _parse(SECTIONS[name], self.raw.get(name), name)
        )

    def _seeds(self, train: Train) -> list[int]:
        seed = _parse(Seeded, {key: self.raw[key] for key in ("seed",) if key in self.raw}, "").seed
        return [seed + k for k in range(train.repeats)]

    @cached_property
    def datasets(self) -> dict[str, Dataset]:
        """The data sets of a study of several, by name, checked."""
        return _parse(Datasets, {"datasets": self.raw.get("datasets") or {}}, "").datasets

    @cached_property
    def grid(self) -> Grid:
        """The section grid, checked."""
        return _parse(Grid, self.raw.get("grid"), "grid")

    @cached_property
    def settings(self) -> list[Setting]:
        """The grid's settings, in the order of the file."""
        return [self._of_grid(name, s) for name, s in self.grid.settings.items()]

    def _of_grid(self, name: str, s: GridSetting) -> Setting:
        """A setting of the grid: its own noise and corruption, else the study's sections with what it changes."""

        def section(which: str) -> Any:
            if which == "seeds":
                return s.seeds or self._seeds(section("train"))
            changes = getattr(s, which)
            if which in ITS_OWN:
                return changes
            study = self.section(which)
            return _parse(SECTIONS[which], study.model_dump() | changes, f"{GRID}.{name}.{which}") if changes else study

        for which in ("train", "sample"):
            if which in self.raw and getattr(s, which):  # refused at once, as the rest of the grid is
                section(which)
        absent = self._absent - set(ITS_OWN)
        place = self.prepared(s.dataset)
        return Setting(name, section, group=s.group, prepared=place, profile=self.profile, absent=absent)

    @cached_property
    def _absent(self) -> frozenset[str]:
        """The sections of a setting that have keys without a default, and are not in the file."""
        needed = {name for name in OURS if any(f.is_required() for f in SECTIONS[name].model_fields.values())}
        return frozenset((needed | {"seed"}) - self.raw.keys())

    def check(self) -> None:
        """Raise InputError for the first value that is not valid, whichever stage it is for."""
        _ = self.profile, self.datasets
        for name in SECTIONS:
            if name in self.raw:
                self.section(name)
        for setting in self.drawn:
            for name in OURS:
                if setting.has(name):
                    setting.section(name)
            if setting.has("seed", "train"):
                setting.section("seeds")

    @property
    def all_settings(self) -> list[Setting]:
        """The focus, if the file has a section of its own or no grid, then the grid."""
        grid = self.settings if "grid" in self.raw else []
        focus = not grid or self.raw.keys() & set(ITS_OWN)
        return [self.setting(None), *grid] if focus else grid

    @property
    def drawn(self) -> list[Setting]:
        """Everything that is sampled and measured: the focus, then the grid's settings with their variants."""
        return [variant for setting in self.all_settings for variant in self.variants(setting)]

    def variants(self, setting: Setting) -> list[Setting]:
        """A setting of the grid, and the same networks sampled in other ways, the grid's and its own; not the focus."""
        if setting.name is None:
            return [setting]
        found = [setting]
        own = self.grid.settings[setting.name].variants
        for name, changes in (self.grid.variants | own).items():
            where = f"{GRID}.{setting.name}.variants" if name in own else "grid.variants"
            sample = _parse(Sample, setting.sample.model_dump() | changes, f"{where}.{name}")
            found.append(replace(setting, section=_with_sample(setting, sample), variant=name))
        return found

    def sweep(self, *stages: str) -> None:
        """Remove what stages wrote for settings and variants of the grid that the file has no more."""
        if self.profile is not None or "grid" not in self.raw:
            return
        for stage in stages:
            drawn = [variant for setting in self.settings for variant in self.variants(setting)]
            kept = {setting.artifacts(stage).name for setting in drawn}
            for place in ("artifacts", "reports"):
                for left in Path(place, "grid", stage).glob("[!.]*"):  # what is being written has a dot in front
                    if left.name.partition(".")[0] in kept:
                        continue
                    if left.is_dir():
                        shutil.rmtree(left)
                    else:
                        left.unlink()

    def chosen(self, options: argparse.Namespace) -> list[Setting]:
        """The settings that a command line asks for: the grid's, those of a group, one of them, or the focus."""
        if getattr(options, "grid", False):
            return self.settings
        name = getattr(options, "setting", None)
        group = [s for s in self.settings if s.group == name] if name else []
        return group or [self.setting(name)]

    def setting(self, name: str | None) -> Setting:
        """The focus (None), or a setting of the grid."""
        if name is None:
            return Setting(None, self.section, absent=self._absent)
        for setting in self.settings:
            if setting.name == name:
                return setting
        raise InputError(f"no setting {name!r} in grid.settings; there are {', '.join(s.title for s in self.settings)}")


def _with_sample(setting: Setting, sample: Sample) -> Callable[[str], Any]:
    return lambda which: sample if which == "sample" else setting.section(which)


def _made(name: str, part: Section) -> dict[str, Any]:
    return part.model_dump(mode="json", exclude=ASIDE.get(name, set()) | part.unused)


def _same(name: str, part: Section, recorded: dict) -> bool:
    """Whether a section is as it was recorded; keys added later count as defaults."""
    aside = part.model_dump(mode="json", include=ASIDE.get(name, set()), exclude_defaults=True)
    try:
        return _made(name, type(part).model_validate(recorded | aside)) == _made(name, part)
    except (ValidationError, TypeError):  # or what was recorded is no section
        return False


def file() -> Path:
    """The file of parameters in the working directory."""
    return next((path for path in FILES if path.exists()), FILES[0])


def load() -> Params:
    """Read the parameters from the working directory; the sections are checked as they are asked for, or by `check`."""
    path = file()
    try:
        content = regular(path).read_bytes()
        if len(content) > LARGEST:
            raise ValueError(f"it has {len(content):,} bytes; at most {LARGEST:,} are read")
        # Not PyYAML: DVC writes 1e-5 as 1e-05, which YAML 1.1 reads as a string.
        raw = json.loads(content) if path.suffix == ".json" else YAML(typ="safe").load(content)
        _check_nesting(raw)
    except RecursionError:
        raise InputError(f"cannot read {path}: it is nested too deep") from None
    except (OSError, ValueError, YAMLError) as error:
        said = " ".join(str(error).replace('in "<byte string>",', "at").split())
        if "integer string conversion" in said:
            said = f"it has a whole number of more than {sys.get_int_max_str_digits()} digits"
        raise InputError(f"cannot read {path}: {shortened(said, 300)}") from error
    if not isinstance(raw, dict):
        raise InputError(f"{path} must be a mapping of sections")
    known = {"seed", "grid", "profile", "datasets", "groups", "stages", *SECTIONS}
    for key in raw:
        if key not in known:
            raise InputError(f"{path}: unknown section {_short(key)}; there are {', '.join(sorted(known))}")
    return Params(raw)


def _check_nesting(raw: object) -> None:
    """Refuse what is nested deeper than any section, and more values than any study has; tell of shared mappings."""
    todo, seen, nodes, shared = [(raw, 1)], set(), 0, False
    while todo:
        node, depth = todo.pop()
        nodes += 1
        if nodes > MOST:
            raise ValueError(f"it has more than {MOST:,} values (those of a YAML alias count wherever it stands)")
        if not isinstance(node, dict | list):
            continue
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} deep")
        shared = shared or (isinstance(node, dict) and id(node) in seen)
        seen.add(id(node))
        todo += [(child, depth + 1) for child in (node.values() if isinstance(node, dict) else node)]
    if shared:
        tell(
            f"{file()} has a mapping with a YAML alias (*name), which dvc exp run -S changes wherever it stands, "
            "or not at all: write it out"
        )


def _parse(model: type[Section], content: object, where: str) -> Any:
    try:
        return model.model_validate(content if content is not None else {})
    except ValidationError as error:
        # A mistyped key first: that another one is missing follows from it.
        first, *more = sorted(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
        place = _place(content, first)
        key = ".".join(shortened(str(part), 60) for part in [where, *place] if part != "")
        if first["type"] == "extra_forbidden":
            raise InputError(f"{file()}: unknown key {key}; {_known(model, place)}") from None
        if first["type"] == "missing":
            raise InputError(f"{file()}: {key} is missing") from None
        if isinstance(first["input"], dict) and first["type"] == "value_error":  # of several keys together
            said = keyed(key, _section(model, place) or model, _message(first))
            raise InputError(f"{file()}: {said}{_kept()}") from None
        # A value that may be of several types has an error for each.
        also = (_message(e).removeprefix("allowed: ") for e in more if _place(content, e) == place)
        said = ", or ".join([_message(first), *also])
        raise InputError(f"{file()}: {key} is {_short(first['input'])}; {said}{_kept()}") from None


def _place(content: Any, error: ErrorDetails) -> tuple:
    """The keys that lead to a bad value. pydantic's end, for some types, in a word that says which type was tried."""
    place = error["loc"]
    for depth, part in enumerate(place):
        here = isinstance(content, dict) and part in content
        there = isinstance(content, list) and isinstance(part, int) and part < len(content)
        if not here and not there:
            return place if error["type"] == "missing" else place[:depth]
        content = content[part]
    return place


def _kept() -> str:
    return ". The invalid value stays in the file; reset it with -S or an editor" if "DVC_STAGE" in os.environ else ""


_REPR = reprlib.Repr()
_REPR.maxlist = _REPR.maxdict = 30
_REPR.maxstring = _REPR.maxlong = _REPR.maxother = 60


def _short(value: object) -> str:
    """A value as Python writes it, at most 60 characters of it."""
    return shortened(_REPR.repr(value), 60)


def _message(error: ErrorDetails) -> str:
    """What is allowed, in plain words."""
    context = error.get("ctx", {})
    bounds = {
        "greater_than": ("above", "gt"),
        "greater_than_equal": ("at least", "ge"),
        "less_than": ("below", "lt"),
        "less_than_equal": ("at most", "le"),
    }
    if error["type"] in bounds:
        words, limit = bounds[error["type"]]
        return f"it must be {words} {plainly(context[limit])}"
    plain = {
        "int_type": "it must be a whole number",
        "int_from_float": "it must be a whole number",
        "float_type": "it must be a number",
        "finite_number": "it must be a finite number",
        "bool_type": "it must be true or false",
        "string_type": "it must be text",
        "list_type": "it must be a list",
        "dict_type": "it must be a mapping of keys to values",
        "model_type": "it must be a mapping of keys to values",
        "literal_error": f"allowed: {context.get('expected', '')}".replace("'", "").replace(" or ", ", "),
        "string_pattern_mismatch": "it must be lower-case words and digits joined by single underscores",
    }
    if error["type"] in ("too_short", "too_long"):
        bound = context.get("min_length", context.get("max_length"))
        return f"it must have {'at least' if error['type'] == 'too_short' else 'at most'} {bound} entries"
    return plain.get(error["type"], error["msg"].removeprefix("Value error, "))


def _known(model: type[Section], place: tuple) -> str:
    """The keys that are allowed where an unknown one stands, as far as they can be told."""
    section = _section(model, place[:-1])
    return f"allowed: {', '.join(section.model_fields)}" if section else "it is not one of that section's keys"


def _section(model: type[Section], place: tuple) -> type[Section] | None:
    """The section that keys lead to."""
    for part in place:
        field = model.model_fields.get(str(part))
        if field is None:  # the name of a setting
            continue
        kinds = (field.annotation, *typing.get_args(field.annotation))
        found = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)]
        if not found:
            return None
        model = found[0]
    return model
