"""--expect KIND:GLOB: what the user says that should have happened to which layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

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

    A pattern that is the full name of a layer means that layer alone.
    Raises UsageError where a pattern fits no layer.
    """
    names: dict[str, tuple[str, ...]] = {
        layer.name or layer.other_name: (layer.name, layer.other_name) for layer in compared.layers
    }
    every = list(dict.fromkeys(name for pair in names.values() for name in pair if name))
    for kind, glob in expected:
        if every and glob != "*" and not any(matches(name, glob) for name in every):
            _refuse(f"--expect {kind.value}:{glob}", glob, every, compared)
    return [Expectation(kind, _means(glob, names)) for kind, glob in expected]


def _refuse(given: str, glob: str, every: Sequence[str], compared: Comparison) -> NoReturn:
    """Raise UsageError: a pattern fits no layer."""
    globs = glob.split(",")
    if len(globs) > 1 and any(matches(name, each) for name in every for each in globs):
        raise UsageError(f"{given}: give --expect once for each GLOB.")
    for layer in compared.layers:
        if layer.before_name and matches(layer.before_name, glob):
            name = layer.name or layer.other_name
            raise UsageError(
                f"{given}: {layer.before_name} is not a BatchNorm layer; write "
                f"'{name}', which is judged along with the weights in front of it."
            )
    refuse_globs(given, [glob], every)


def _means(glob: str, names: dict[str, tuple[str, ...]]) -> Callable[[str], bool]:
    """Whether a layer is meant: the one of that full name if there is one, else by its end, too."""
    if any(glob in pair for pair in names.values()):
        return lambda name: glob in names.get(name, (name,))
    return lambda name: any(matches(each, glob) for each in names.get(name, (name,)) if each)
