"""Print docs/parameters.md, a table for each section of params.yaml: python -m pipeline.params.table

Everything in it comes from the schema (`pipeline.params.sections`); `make docs` writes the file.
"""

import inspect
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import AfterValidator, BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pipeline.params.sections import SECTIONS, Grid, described
from sagd import formulations, operators
from sagd.errors import plainly

INTRODUCTION = """\
# Parameters

<!-- Written by `make docs` from pipeline/params/sections.py; do not edit. -->

All keys of params.yaml. Change one with `dvc exp run -S noise.alpha=-0.5`, or in the file. The defaults here are those
of a key that is left out; the values of the default study are in [params.yaml](../params.yaml). A key that params.yaml
does not have yet needs `++`: `-S ++train.compile=true`.

Unknown keys, wrong types and values out of range are refused in one line, before anything is trained. DVC has written
the value to params.yaml by then: reset it with `-S` or an editor.

## seed

A whole number, 0 or more. Each setting is trained with `seed`, `seed + 1`, ..., `train.repeats` times."""

SETTINGS = """\
## grid.settings.NAME

One setting that the focus is compared with. Its `noise` and `corrupt` are sections as above, and its own; all else is
the study's. `encode`, `train`, `sample` and `evaluate` hold only the keys that differ from the sections of these names,
and `seeds` stand for `seed` and `train.repeats`. `dataset` and `group` are for studies of several data sets, such as
the paper's. A name has lower-case letters, digits and single underscores."""

LIMITS: dict[type, str] = {Ge: "ge", Gt: "gt", Le: "le", Lt: "lt"}
WORDS: dict[type, str] = {Ge: "at least", Gt: "above", Le: "at most", Lt: "below"}
PLAIN = {int: "whole number", float: "number", str: "text", bool: "true, false", type(None): "null"}
SIZES = {MinLen: "min_length", MaxLen: "max_length"}


def refusal(check: AfterValidator) -> str | None:
    """What a validator says is allowed, when it is given something else."""
    try:
        typing.cast(typing.Callable, check.func)("?")
    except (ValueError, TypeError, IndexError) as error:
        _, found, allowed = str(error).partition("allowed: ")
        return allowed if found else str(error).removeprefix("it must be ")
    return None


def allowed(kind: Any, metadata: typing.Iterable[Any] = ()) -> str:
    """The values that a key takes, in words."""
    metadata = list(metadata)
    if get_origin(kind) is Annotated:
        kind, *more = get_args(kind)
        return allowed(kind, [*metadata, *more])
    checked = any(isinstance(m, AfterValidator) for m in metadata)
    if kind == list[float] and checked:  # a Band
        return "[low, high]"
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) in (Union, types.UnionType):
        return ", or ".join(allowed(part, metadata) for part in get_args(kind))
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "a section"
    if get_origin(kind) is dict or kind is dict:
        return "keys to values"
    if get_origin(kind) is list:
        sizes = [size for m in metadata for size in _sizes(m)]
        count = f"{sizes[0]} of: " if len(sizes) == 2 and sizes[0] == sizes[1] else "list of: "
        return count + allowed(get_args(kind)[0]) + (", no two alike" if checked else "")
    said = [s for m in metadata if isinstance(m, AfterValidator) and (s := refusal(m))]
    return said[0] if said else ", ".join([PLAIN[kind], *_limits(metadata)])


def _sizes(constraint: Any) -> Iterator[int]:
    for kind, name in SIZES.items():
        if isinstance(constraint, kind):
            yield getattr(constraint, name)
    for inner in getattr(constraint, "metadata", ()):
        yield from _sizes(inner)


def _limits(metadata: typing.Iterable[Any]) -> Iterator[str]:
    """The bounds of a number, such as "1 to 1,000", or "above 0 and at most 1,000"."""
    bounds = {
        kind: plainly(getattr(c, name)) for c in _flat(metadata) for kind, name in LIMITS.items() if type(c) is kind
    }
    if Ge in bounds and Le in bounds:
        yield f"{bounds[Ge]} to {bounds[Le]}"
    elif bounds:
        yield " and ".join(f"{WORDS[kind]} {bound}" for kind, bound in bounds.items())


def _flat(metadata: typing.Iterable[Any]) -> Iterator[Any]:
    """Constraints, and those inside of what pydantic's Field groups."""
    for constraint in metadata:
        yield constraint
        yield from _flat(getattr(constraint, "metadata", ()))


def default(field: FieldInfo) -> str:
    """What holds where the key is left out."""
    if field.default is PydanticUndefined:
        return "required"
    if isinstance(field.default, BaseModel):
        return ""
    words = {None: "none", True: "true", False: "false"}
    known = isinstance(field.default, bool) or field.default is None
    return words[field.default] if known else f"`{field.default}`".replace("'", "")


def takers(name: str) -> str:
    """The operators that a key of the noise is for, if it is not for nearly all."""
    found = [o for o, function in operators.OPERATORS.items() if name in inspect.signature(function).parameters]
    shared = not found or len(found) == len(operators.OPERATORS) or name == "alpha"
    return "" if shared else f"{', '.join(f'`{o}`' for o in found)}: "


def formulation(name: str) -> type | None:
    """The class that ``train.NAME`` has the arguments of."""
    family = formulations.families().get(name)
    return None if family is None else type(family.build(family.predictions[0], (1, 8, 8)))


def rows(name: str, model: type[BaseModel]) -> Iterator[str]:
    """The table of a section, then those of the sections inside it."""
    made = formulation(name.rpartition(".")[2])
    told = described(made) if made else {}
    says = f"Arguments of `sagd.{made.__name__}`, for `train.schedule: {name.rpartition('.')[2]}`." if made else ""
    yield f"## {name}\n\n{says or ' '.join((model.__doc__ or '').split())}\n"
    yield "| key | default | allowed | meaning |"
    yield "| --- | --- | --- | --- |"
    inside = []
    for key, field in model.model_fields.items():
        section = next((t for t in _parts(field.annotation) if isinstance(t, type) and issubclass(t, BaseModel)), None)
        if section is not None and section.__name__ not in ("Corrupt", "GridSetting"):
            inside.append((f"{name}.{key}", section))
        meaning = field.description or told.get(key, "")
        if name == "noise" and (of := takers(key)):
            meaning = of + meaning[:1].lower() + meaning[1:]
        cells = (f"`{name}.{key}`", default(field), allowed(field.annotation, field.metadata), meaning)
        yield "| " + " | ".join(cell.replace("``", "`").replace("|", "\\|") for cell in cells) + " |"
    yield ""
    for place, section in inside:
        yield from rows(place, section)


def _parts(kind: Any) -> tuple:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def page() -> str:
    """docs/parameters.md."""
    tables = [line for name, model in SECTIONS.items() for line in rows(name, model)]
    return "\n".join([INTRODUCTION, "", *tables, *rows("grid", Grid), SETTINGS]) + "\n"


if __name__ == "__main__":
    print(page(), end="")
