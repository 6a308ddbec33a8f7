"""Checkpoints on the command line: which files are one model, and globs that mean no layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from bncli.errors import UsageError
from bncli.gate.places import matches
from bncli.given import is_given
from bncli.loaders import split_spec
from bncli.loaders.patterns import once
from bncli.loaders.whole import Models

MOST_COMPARED = 2000
"""How many names are compared with one that no layer has."""


def as_models(specs: list[str]) -> list[str]:
    """The specs with each folder and each shard as the file that stands for its whole model.

    What several of them mean stands once, at its first place.
    """
    models = Models()
    whole = []
    for spec in specs:
        path, name = split_spec(spec)
        model = path if is_given(path) else models.path_of(path)
        whole.append(spec if model == path else f"{model}::{name}" if name else str(model))
    return once(whole)


def refuse_globs(given: str, globs: Sequence[str], names: Sequence[str]) -> NoReturn:
    """Raise UsageError: the globs, `given` in a flag, mean no layer."""
    from bncli.loaders.names import listed, nearest

    begin = f"{given}: no BatchNorm layer has such a name; "
    for glob in globs:
        if any(matches(name, f"{glob}.*") for name in names):
            raise UsageError(f"{begin}write '{glob}.*' for the layers that begin with it.")
    first = globs[0]
    if first.endswith(".*") and (module := _nearest_module(first[:-2], names)):
        raise UsageError(f"{begin}did you mean '{module}.*'?")
    near = set(nearest(names, first.strip("*?."))) or names
    shown = [name for name in names if name in near][:3]
    raise UsageError(f"{begin}there are {len(names)}, such as {listed(shown)}.")


def _nearest_module(wanted: str, names: Sequence[str]) -> str:
    """The part of the names, of as many words as `wanted` and before the last, that is like it."""
    import difflib

    words = wanted.count(".") + 1
    parts = [name.split(".") for name in names[:MOST_COMPARED]]
    modules = {".".join(part[at : at + words]) for part in parts for at in range(len(part) - words)}
    return next(iter(difflib.get_close_matches(wanted, sorted(modules), 1)), "")
