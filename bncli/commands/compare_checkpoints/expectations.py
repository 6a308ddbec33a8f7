"""--expect KIND:GLOB: what the user says that should have happened to which layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bncli.arguments.checkpoints import refuse_globs
from bncli.errors import UsageError
from bncli.gate.places import matches
from bncli.rulebook.changes import Expectation, Expected

if TYPE_CHECKING:
    from collections.abc import Callable

    from bncli.model.changes import Comparison


def parse_expected(texts: Sequence[str]) -> list[tuple[Expected, str]]:
    """What each --expect asks for, and the pattern of the layers. Raises UsageError."""
    return [_parse(text) for text in texts]


def _parse(text: str) -> tuple[Expected, str]:
    kind, colon, glob = text.partition(":")
    kinds = [each.value for each in Expected]
    *others, last = kinds
    if not colon or not glob:
        raise UsageError(f"--expect {text}: write KIND:GLOB, such as 'frozen:backbone.*'.")
    if kind in kinds:
        return Expected(kind), glob
    import difflib

    near = difflib.get_close_matches(kind, kinds, 1)
    meant = f"did you mean {near[0]}?" if near else f"it takes {', '.join(others)} or {last}."
    raise UsageError(f"--expect {text}: there is no kind '{kind}'; {meant}")


def expectations(
    expected: Sequence[tuple[Expected, str]], compared: Comparison
) -> list[Expectation]:
    """The expectations, each for the layers with a name in either file that fits.

    Raises UsageError where a pattern fits no layer.
    """
    names: dict[str, tuple[str, ...]] = {
        layer.name or layer.other_name: (layer.name, layer.other_name) for layer in compared.layers
    }
    every = list(dict.fromkeys(name for pair in names.values() for name in pair if name))
    for kind, glob in expected:
        if every and glob != "*" and not any(matches(name, glob) for name in every):
            refuse_globs(f"--expect {kind.value}:{glob}", [glob], every)
    return [Expectation(kind, _means(glob, names)) for kind, glob in expected]


def _means(glob: str, names: dict[str, tuple[str, ...]]) -> Callable[[str], bool]:
    return lambda name: any(matches(each, glob) for each in names.get(name, (name,)) if each)
