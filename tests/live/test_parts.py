"""The part of a checkpoint that fits a set of keys, found by names alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncli.errors import MissingTensorError
from bncli.live.parts import Parts, few, fitting_part, fitting_parts
from bncli.model import TensorRef

PATH = Path("net.pth")
KEYS = ("conv.weight", "bn.weight", "bn.running_mean", "bn.num_batches_tracked")


def refs(*names):
    """Tensors that cannot be read."""
    return {name: TensorRef(name, PATH, (1,), "float32", (1,), None) for name in names}


def under(prefix, keys=KEYS):
    return [f"{prefix}{key}" for key in keys]


def refusal(names, part="", keys=KEYS):
    with pytest.raises(MissingTensorError) as caught:
        fitting_part(PATH, refs(*names), part, keys)
    return str(caught.value)


@given(
    st.lists(st.sampled_from(["module", "model", "net", "a", "_orig_mod", "x.y"]), max_size=4),
    st.lists(st.sampled_from(["module", "model", "_orig_mod"]), max_size=2),
    st.sampled_from("./"),
)
def test_wrappers_on_either_side(before, wrapped, end):
    prefix = "".join(f"{each}." for each in before)
    keys = under("".join(f"{each}." for each in wrapped))
    names = [name.replace(".", end) for name in under(prefix)]
    part = fitting_part(PATH, refs(*names, "optimizer.lr"), "", keys)
    assert {key: ref.name for key, ref in part.found.items()} == dict(zip(keys, names, strict=True))


def test_all_that_lies_under_the_prefix():
    part = fitting_part(
        PATH, refs(*under("ema.module."), "ema.module.aux", "ema.n", "lr"), "", KEYS
    )
    assert part.prefix == "ema.module"
    assert list(part.refs) == [*KEYS, "aux"]
    assert part.left_over == ("ema.module.aux",)


def test_the_part_that_was_named():
    names = [*under("model."), *under("ema.module.")]
    assert refusal(names) == (
        "net.pth: 'ema.module' and 'model' fit the model equally; say which with --checkpoint "
        "net.pth::ema.module."
    )
    assert fitting_part(PATH, refs(*names), "ema", KEYS).prefix == "ema.module"
    assert fitting_part(PATH, refs(*names), "model", KEYS).prefix == "model"
    assert refusal(names, "modle") == (
        "net.pth: there is no part 'modle' in it; did you mean model?"
    )
    assert refusal(["a.b"], "a").startswith("net.pth: none of the model's 4 tensors is in it; it")


def test_counters_do_not_decide():
    names = [*under("live.", KEYS[:-1]), *under("old.", KEYS[2:])]
    assert fitting_part(PATH, refs(*names), "", KEYS).prefix == "live"


def test_candidates_of_the_same_tensors_are_together():
    keys = under("module.")
    tensors = refs(*under("ema.module."), *under("model."), "ema.n_averaged")
    parts = fitting_parts(PATH, tensors, "", keys, "capture")
    assert parts.groups == [["ema.module.", "ema."], ["model."]]
    assert parts.names == ["ema.module", "model"]
    assert "module.bn.weight" in parts.part("ema.").refs
    with pytest.raises(MissingTensorError, match="fit the capture equally"):
        parts.the_one()
    whole = fitting_parts(PATH, refs(*KEYS, *under("ema.")), "", KEYS, "capture")
    assert whole.the_one().prefix == ""


def test_very_many_parts_are_not_put_together(monkeypatch):
    def part(self, prefix):
        raise AssertionError(f"{prefix} was")

    monkeypatch.setattr(Parts, "part", part)
    tensors = refs(*(f"{number}.bn.weight" for number in range(2000)))
    with pytest.raises(MissingTensorError, match=r"'0' and '1' and .* more fit the model"):
        fitting_part(PATH, tensors, "", KEYS)


def test_the_first_of_many_keys():
    assert few([]) == "no keys"
    assert few("a") == "1 key (a)"
    assert few("abcdefg") == "7 keys (a, b, c, d, e and 2 more)"
