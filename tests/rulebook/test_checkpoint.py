"""The rules for checkpoints, run: in which order, and what is said in the place of what."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bncli.loaders import open_model
from bncli.model import BatchNormState
from bncli.rulebook import corruption, shapes, unwritten
from bncli.rulebook.checkpoint import (
    FILE_CHECKS,
    LAYER_CHECKS,
    MODULES,
    checkpoint,
    file_findings,
    layer_findings,
)
from bncli.rulebook.copies import twins
from bncli.rulebook.layers import Checkpoint, Layer
from bncli.rulebook.pairs import Pair
from bncli.rulebook.summaries import summary
from bncli.state_dict import batch_norm_layers, read_tensors

RNG = np.random.default_rng(0)
LIVE = [f"net.{name}" for name in ("stem", "layer2", "layer10", "layer1", "head")]


def trained(channels=8):
    """The four tensors of a layer that was trained."""
    return {
        "weight": RNG.uniform(0.5, 1.5, channels).astype(np.float32),
        "bias": RNG.normal(size=channels).astype(np.float32),
        "running_mean": RNG.normal(size=channels).astype(np.float32),
        "running_var": RNG.uniform(0.5, 2.0, channels).astype(np.float32),
    }


def saved(path, layers, **more):
    tensors = {f"{name}.{leaf}": a for name, layer in layers.items() for leaf, a in layer.items()}
    np.savez(path, **tensors, **more)
    return path


def layer_of(path, name="bn", **more):
    """A layer of a file, as the rules are given it."""
    (refs,) = [refs for refs in batch_norm_layers(open_model(path)) if refs.name == name]
    state, notes = read_tensors(refs)
    return Layer(
        state,
        shapes={leaf: ref.shape for leaf, ref in refs.tensors.items()},
        dtypes={leaf: ref.dtype for leaf, ref in refs.tensors.items()},
        eps=1e-5,
        momentum=0.1,
        eps_assumed=True,
        momentum_assumed=True,
        unread=notes,
        **more,
    )


def codes(findings):
    return [finding.code for finding in findings]


def test_the_checks_are_those_of_the_modules():
    of_layers = [check for m in MODULES for check in getattr(m, "LAYER_CHECKS", ())]
    of_files = [check for m in MODULES for check in getattr(m, "FILE_CHECKS", ())]
    assert (list(LAYER_CHECKS), list(FILE_CHECKS)) == (of_layers, of_files)
    assert {check.__module__ for check in of_layers} == {
        f"bncli.rulebook.{name}"
        for name in ("unwritten", "corruption", "variances", "shapes", "channels", "precision")
    }
    assert all(len(set(checks)) == len(checks) > 5 for checks in (of_layers, of_files))
    assert LAYER_CHECKS[:3] == unwritten.LAYER_CHECKS  # which silence the rest


def test_a_layer_that_was_trained_has_no_finding(tmp_path):
    assert layer_findings(layer_of(saved(tmp_path / "a.npz", {"bn": trained()}))) == []


def test_what_was_never_filled_silences_what_follows_from_it(tmp_path):
    layer = trained() | {"running_mean": np.zeros(8, "f"), "running_var": np.zeros(8, "f")}
    (found,) = layer_findings(layer_of(saved(tmp_path / "a.npz", {"bn": layer})))
    assert found.code == "BN208"
    assert found.instead_of is None  # an older rule was for it
    layer["weight"] = layer["weight"].copy()
    layer["weight"][2] = np.nan
    both = layer_findings(layer_of(saved(tmp_path / "b.npz", {"bn": layer})))
    assert codes(both) == ["BN208", "BN201"]


def test_garbage_is_said_in_the_place_of_its_parts(tmp_path):
    layer = trained(64)
    bits = RNG.integers(1, 1 << 31, 64, dtype=np.int64).astype(np.uint32)
    layer["running_var"] = bits.view(np.float32)
    layer["running_mean"] = -bits[::-1].view(np.float32)
    given = layer_of(saved(tmp_path / "a.npz", {"bn": layer}))
    found = layer_findings(given)
    assert codes(found) == ["BN209"]
    others = (check for check in LAYER_CHECKS if check not in unwritten.LAYER_CHECKS)
    alone = {finding.code for check in others for finding in check(given)}
    skipped = {f.code for check in shapes.LAYER_CHECKS for f in check(given)}
    assert found[0].instead_of == tuple(sorted(alone - skipped))
    assert alone & {corruption.NAN.code, corruption.INFINITE.code} <= set(found[0].instead_of)


def test_a_file_with_its_layers(tmp_path):
    layers = {name: trained() for name in LIVE} | {f"ema.{LIVE[0]}": trained()}
    layers["norm"] = {"weight": np.ones(8, "f"), "bias": np.zeros(8, "f")}
    layers["matrix"] = {"weight": np.ones((8, 2), "e"), "bias": np.zeros(8, "f")}
    numbers = {"ema.n_averaged": np.array(7), "scale.weight": np.array(1.0)}  # one says little
    path = saved(tmp_path / "a.npz", layers, **numbers)
    file = open_model(path)
    refs = batch_norm_layers(file)
    context = checkpoint(file, [summary(layer_of(path, each.name)) for each in refs])
    assert [layer.name for layer in context.layers] == [*LIVE, f"ema.{LIVE[0]}"]
    assert [bare.name for bare in context.bare] == ["norm"]
    assert context.bare[0].leaves == ("weight", "bias")
    assert context.twins == {f"ema.{LIVE[0]}": LIVE[0]}
    assert context.followers == []
    assert context.averaged == {"ema": 7.0}
    assert context.parameter_dtypes == {"float16", "float32"}


@pytest.fixture
def odd(tmp_path):
    """Two files in which several rules find something at several layers each."""
    initial = {"running_mean": np.zeros(8, "f"), "running_var": np.ones(8, "f")}
    for number, path in enumerate((tmp_path / "b.npz", tmp_path / "a.npz")):
        layers = {name: trained() for name in LIVE}
        for name in LIVE[number:4:2]:
            layers[name]["running_var"] = -layers[name]["running_var"]
        for name in LIVE[::2]:
            layers[f"lone.{name}"] = trained() | initial
        for name in LIVE:
            layers[f"ema.{name}"] = trained() | (initial if name != LIVE[2] else {})
        for name in ("bn9", "bn1"):
            layers[name] = {"weight": trained()["weight"], "bias": trained()["bias"]}
        saved(path, layers)
    return tmp_path / "b.npz", tmp_path / "a.npz"


def test_findings_of_one_code_stand_as_the_files_have_their_layers(run, odd):
    report = run("inspect-checkpoint", *odd, "-f", "json").report
    rows = [(row["path"], row["name"]) for row in report["tables"]["layers"]]
    found = [(item["code"], item["path"], item["subject"]) for item in report["findings"]]
    assert len({code for code, *_ in found}) > 3
    for wanted in {code for code, *_ in found}:
        places = [(path, name) for code, path, name in found if code == wanted]
        assert [path for path, _ in places] == sorted((p for p, _ in places), reverse=True)
        there = [place for place in places if place in rows]
        assert there == sorted(there, key=rows.index)
        assert wanted in {"BN106", "BN107", "BN604"} or len(there) > 2, wanted


def test_no_order_of_findings_comes_from_the_hash_of_a_name(run_process, odd):
    texts = {
        run_process("inspect-checkpoint", *odd, "-f", "json", env={"PYTHONHASHSEED": seed}).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1


EXTREMES = [
    0.0,
    -0.0,
    1.0,
    -1e-5,
    1e-45,
    1e-5,
    65504.0,
    65505.0,
    3e38,
    -1.0,
    np.nan,
    np.inf,
    -np.inf,
]


vectors = st.one_of(
    st.none(),
    st.tuples(
        st.lists(st.one_of(st.sampled_from(EXTREMES), st.floats(width=32)), max_size=12),
        st.sampled_from(["f2", "f4", "f8"]),
    ),
)


counters = st.one_of(
    st.none(), st.integers(-3, 2**62), st.floats(), st.sampled_from([0, 1, 100, 200])
)


@given(
    st.lists(st.tuples(vectors, vectors, vectors, vectors, counters), min_size=1, max_size=4),
    st.sampled_from([0.0, 1e-5, 1e-3, 1e3]),
    st.one_of(st.none(), st.sampled_from([-0.5, 0.0, 0.1, 1.0, 2.0, 1e-9])),
    st.booleans(),
    st.tuples(*[st.one_of(st.none(), st.floats(0, 1e308))] * 3),
    st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_whatever_a_file_holds_it_is_judged(layers, eps, momentum, assumed, numbers, shared):
    """Any values, lengths and dtypes: findings with whole sentences, and never an exception."""
    leaves = ("running_mean", "running_var", "weight", "bias")
    dtypes = {"f2": "float16", "f4": "float32", "f8": "float64"}
    findings, summaries = [], []
    for number, (*tensors, counter) in enumerate(layers):
        with np.errstate(over="ignore"):
            arrays = {
                leaf: np.array(tensor[0], tensor[1])
                for leaf, tensor in zip(leaves, tensors, strict=True)
                if tensor is not None
            }
        shapes = {leaf: array.shape for leaf, array in arrays.items()}
        if counter is not None:
            shapes["num_batches_tracked"] = ()
        name = ("net.bn", "ema.bn", "net.bn2", "")[number]
        state = BatchNormState(name, **arrays, num_batches_tracked=counter)
        kinds = {leaf: dtypes[array.dtype.str[1:]] for leaf, array in arrays.items()}
        made = Layer(state, shapes, kinds, eps=eps, momentum=momentum, momentum_assumed=assumed)
        findings += layer_findings(made)
        summaries.append(summary(made))
    pairs = {copy: Pair(("ema", "net"), *numbers) for copy in twins(summaries)}
    file = Checkpoint(
        summaries,
        twins=twins(summaries),
        pairs=pairs,
        followers=list(pairs) * shared,
        shared={"net.bn2": "net.bn"} if shared and len(layers) > 2 else {},
        averaged={} if shared else {"ema": 3.0},
    )
    for finding in findings + file_findings(file):
        assert not finding.message.endswith(".")
        assert not finding.detail or finding.detail.endswith(".")
        assert finding.evidence
        assert "\n" not in finding.text
