"""The layers of a statistics file in a checkpoint, and whether they are of the same weights."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bncli.errors import BncliError, FileError, MissingTensorError
from bncli.files.reading import reading
from bncli.live.targets import check_weights, copies_of, leaves_of, targets_of
from bncli.loaders.statistics import merge_captures, open_statistics
from tests.live.code import code

__all__ = ["code"]

TEXT = """
    import torch
    from torch import nn

    def net(dtype="float32", seed=0, frozen=False):
        torch.manual_seed(seed)
        made = nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.Sequential(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5)),
            nn.Conv2d(5, 2, 1),
        )
        for each in (made[1], made[2][1]):
            nn.init.uniform_(each.weight, 0.5, 1.5)
            nn.init.uniform_(each.running_mean)
        if frozen:
            made[1].requires_grad_(False)
        return made.to(getattr(torch, dtype))
"""
LEAVES = ("running_mean", "running_var", "num_batches_tracked")
ALL = ("running_mean", "running_var", "weight", "bias", "num_batches_tracked")
LAYERS = {"1": LEAVES, "2.1": LEAVES}


def net(**arguments) -> nn.Module:
    """The network that TEXT builds."""
    names: dict = {}
    exec("\n".join(line[4:] for line in TEXT.splitlines()), names)
    return names["net"](**arguments)


def prefixed(state, prefix):
    return {f"{prefix}{key}": value for key, value in state.items()}


@pytest.fixture
def capture(code, save, run):
    """`capture("net.pth", *flags)`: what `bncli capture` saves of the network."""
    code("net.py", TEXT)
    save("x.npy", np.random.default_rng(0).standard_normal((6, 3, 8, 8), dtype=np.float32))

    def capture(checkpoint=None, *flags):
        given = () if checkpoint is None else ("--checkpoint", checkpoint)
        what = ("net.py:net", *given, "--data", "x.npy", "--save-stats", "s.npz", *flags)
        result = run("capture", *what)
        assert result.code == 0, result.stderr
        return open_statistics("s.npz")

    return capture


def refusal(call, error: type[BncliError] = FileError) -> str:
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).isprintable()
    return str(caught.value)


def names(targets):
    """The full names of the tensors of each layer."""
    return {
        layer: [ref.name for ref in refs.tensors.values()] for layer, refs in targets.layers.items()
    }


# ------------------------------------------------------------------ which tensors


@pytest.mark.parametrize(
    ("wrap", "part"),
    [
        (lambda state: state, ""),
        (lambda state: {"state_dict": state, "epoch": 3}, "state_dict"),
        (lambda state: prefixed(state, "module."), "module"),
        (lambda state: {"a": {"state_dict": prefixed(state, "_orig_mod.module.")}},
         "a.state_dict._orig_mod.module"),
        (lambda state: {"model": state, "optimizer": {"state": {1: {"weight": torch.ones(3)}}}},
         "model"),
    ],
)  # fmt: skip
def test_the_tensors_of_layers(save, wrap, part):
    path = save("net.pth", wrap(net().state_dict()))
    targets = targets_of(path, LAYERS)
    before = f"{part}." if part else ""
    assert names(targets) == {
        layer: [f"{before}{layer}.{leaf}" for leaf in ALL] for layer in LAYERS
    }
    assert [targets.part, targets.missing, targets.sums] == [part, {}, {}]
    assert list(targets.refs) == list(net().state_dict())
    assert targets.label == (f"net.pth::{part}" if part else "net.pth")
    assert [each.name for each in targets.layers.values()] == [f"{before}1", f"{before}2.1"]


def test_the_layers_of_a_wrapped_model_and_of_a_wrapper_inside(save):
    layers = prefixed(LAYERS, "module.")
    targets = targets_of(save("bare.pth", net().state_dict()), layers)
    assert names(targets)["module.2.1"][0] == "2.1.running_mean"
    state = {
        key.replace("2.", "2._checkpoint_wrapped_module."): each
        for key, each in net().state_dict().items()
    }
    targets = targets_of(save("inside.pth", state), LAYERS)
    inside = "2._checkpoint_wrapped_module.1"
    assert names(targets)["2.1"][0] == f"{inside}.running_mean"
    assert targets.layers["2.1"].name == inside


def test_tensors_of_one_layer_under_two_names(save):
    state = net().state_dict()
    state["2._orig_mod.1.running_var"] = state.pop("2.1.running_var")
    targets = targets_of(save("net.pth", state), LAYERS)
    assert names(targets)["2.1"] == [
        "2.1.running_mean", "2._orig_mod.1.running_var", "2.1.weight", "2.1.bias",
        "2.1.num_batches_tracked",
    ]  # fmt: skip
    assert targets.missing == {}


def test_a_batch_norm_alone(save):
    targets = targets_of(save("bn.pth", nn.BatchNorm1d(3).state_dict()), {"": LEAVES})
    assert names(targets) == {"": [*ALL]}


def test_other_containers(save, folder):
    state = net().state_dict()
    save_file(prefixed(state, "model."), "net.safetensors")
    assert targets_of("net.safetensors", LAYERS).part == "model"
    save("net.npz", **{key: value.numpy() for key, value in state.items()})
    assert targets_of("net.npz", LAYERS).part == ""
    shards = {"a.safetensors": {}, "b.safetensors": {}}
    where = {}
    for number, (key, value) in enumerate(state.items()):
        where[key] = sorted(shards)[number % 2]
        shards[where[key]][key] = value
    for name, tensors in shards.items():
        save_file(tensors, name)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    found = targets_of(index.name, LAYERS).layers["2.1"].tensors
    assert {ref.path.name for ref in found.values()} == set(shards)


def test_what_a_checkpoint_lacks(save):
    state = net().state_dict()
    for key in ("1.num_batches_tracked", "2.1.running_mean", "2.1.running_var"):
        del state[key]
    targets = targets_of(save("net.pth", {"model": state}), LAYERS | {"9": LEAVES[:1]})
    assert targets.missing == {
        "1": ("num_batches_tracked",),
        "2.1": ("running_mean", "running_var"),
        "9": ("running_mean",),
    }
    assert list(targets.layers) == ["1", "2.1"]
    assert refusal(lambda: targets_of("net.pth", {"9": LEAVES}), MissingTensorError) == (
        "net.pth: none of the capture's 3 tensors is in it; it has 13 keys (model.0.weight, "
        "model.0.bias, model.1.weight, model.1.bias, model.1.running_mean and 8 more), and the "
        "capture has 3 keys (9.running_mean, 9.running_var, 9.num_batches_tracked)."
    )


def test_neither_torch_nor_the_model_is_needed(capture, save, run_process):
    capture(save("net.pth", net().state_dict()))
    text = (
        "import sys; from bncli.loaders.statistics import open_statistics; "
        "from bncli.live.targets import check_weights, copies_of, leaves_of, targets_of; "
        "seen = open_statistics('s.npz'); "
        "targets = targets_of('net.pth', leaves_of(seen), seen.fingerprint); "
        "check_weights(targets, seen); copies_of(targets, seen); "
        "print('torch' in sys.modules, list(targets.layers))"
    )
    result = run_process(python=["-c", text])
    assert (result.code, result.stdout, result.stderr) == (0, "False ['1', '2.1']\n", "")


def test_parts_that_fit_equally(save):
    both = {"model": net().state_dict(), "model_ema": prefixed(net(seed=1).state_dict(), "module.")}
    save("net.pth", both)
    assert refusal(lambda: targets_of("net.pth", LAYERS), MissingTensorError) == (
        "net.pth: 'model' and 'model_ema.module' fit the capture equally; say which with "
        "--checkpoint net.pth::model."
    )
    assert targets_of("net.pth::model_ema", LAYERS).part == "model_ema.module"
    assert "there is no part 'modle'" in refusal(lambda: targets_of("net.pth::modle", LAYERS))


# ------------------------------------------------------------------ of which weights


@pytest.mark.parametrize("which", ["model", "model_ema"])
def test_the_part_with_the_weights_of_the_capture(capture, save, which):
    save("net.pth", {"model": net().state_dict(), "model_ema": net(seed=1).state_dict()})
    seen = capture(f"net.pth::{which}")
    for fingerprint in (seen.fingerprint, {"weights": seen.fingerprint["weights"]}):
        targets = targets_of("net.pth", leaves_of(seen), fingerprint)
        assert targets.part == which
        check_weights(targets, seen)
    other = "model_ema" if which == "model" else "model"
    targets = targets_of(f"net.pth::{other}", leaves_of(seen), seen.fingerprint)
    assert refusal(lambda: check_weights(targets, seen)) == (
        "net.pth: the statistics are of other weights (the weight of '1' is another in it); "
        f"capture them again with --checkpoint net.pth::{other}."
    )
    save("net.pth", {"model": net(seed=2).state_dict(), "model_ema": net(seed=3).state_dict()})
    assert refusal(lambda: targets_of("net.pth", leaves_of(seen), seen.fingerprint)) == (
        "net.pth: 'model' and 'model_ema' hold the layers, and the statistics are of none of these "
        "weights; capture them again with --checkpoint net.pth::model."
    )


def test_parts_with_the_same_weights(capture, save):
    save("net.pth", {"model": net().state_dict(), "model_ema": net().state_dict()})
    seen = capture("net.pth::model")
    assert refusal(lambda: targets_of("net.pth", leaves_of(seen), seen.fingerprint)).startswith(
        "net.pth: 'model' and 'model_ema' fit the capture equally; say which"
    )


def test_a_wrapper_inside_that_only_the_checkpoint_has(capture, save):
    state = {key.replace("2.", "2.module."): each for key, each in net().state_dict().items()}
    seen = capture(save("net.pth", state))
    targets = targets_of("net.pth", leaves_of(seen), seen.fingerprint)
    check_weights(targets, seen)
    assert targets.layers["2.1"].name == "2.module.1"
    assert targets.sums["weights"] == seen.fingerprint["checkpoint"] != seen.fingerprint["weights"]


def test_weights_that_were_loaded_by_other_code(capture, save):
    seen = capture(None, "--arg", "seed=4")
    assert "checkpoint" not in seen.fingerprint
    save("net.pth", {"state_dict": prefixed(net(seed=4).state_dict(), "module.")})
    check_weights(targets_of("net.pth", leaves_of(seen), seen.fingerprint), seen)
    check_weights(targets_of("net.pth", leaves_of(seen)), seen)


def test_weights_that_differ_outside_of_the_layers(capture, save):
    seen = capture(save("net.pth", net().state_dict()))
    state = net().state_dict()
    state["3.bias"] += 1
    save("net.pth", state)
    assert refusal(lambda: check_weights(targets_of("net.pth", leaves_of(seen)), seen)) == (
        "net.pth: the statistics are of other weights (their checksum is another, although those "
        "of its layers agree); capture them again with --checkpoint net.pth."
    )


def test_running_statistics_may_be_others(capture, save):
    seen = capture(save("net.pth", net().state_dict()))
    state = net().state_dict()
    state["1.running_mean"] += 1
    check_weights(targets_of(save("net.pth", state), leaves_of(seen)), seen)


def test_but_not_those_of_a_frozen_layer(capture, save):
    save("net.pth", net().state_dict())
    seen = capture("net.pth", "--arg", "frozen=True")
    assert [layer.frozen for layer in seen.norms] == [True, False]
    state = net().state_dict()
    state["2.1.running_mean"] += 1
    check_weights(targets_of(save("other.pth", state), leaves_of(seen)), seen)
    state["1.running_var"][2] += 1
    save("other.pth", state)
    assert refusal(lambda: check_weights(targets_of("other.pth", leaves_of(seen)), seen)) == (
        "other.pth: the statistics are of another network: the running_var of '1' is another in "
        "it, and the layer is frozen, so that all layers behind it see what these running "
        "statistics make; capture them again with --checkpoint other.pth."
    )


@pytest.mark.parametrize(
    ("stored", "model"),
    [("float16", "float32"), ("bfloat16", "float32"), ("float64", "float32"),
     ("float32", "bfloat16")],
)  # fmt: skip
def test_a_dtype_that_was_converted(capture, save, stored, model):
    state = {
        key: each.to(getattr(torch, stored)) if each.is_floating_point() else each
        for key, each in net(dtype="float64").state_dict().items()
    }
    save("net.pth", state)
    flags = ("--arg", f"dtype={model}", "--arg", "frozen=True")
    seen = capture("net.pth", *flags, "--dtype", model)
    assert seen.source["checkpoint"]["converted"]
    targets = targets_of("net.pth", leaves_of(seen), seen.fingerprint)
    check_weights(targets, seen)
    without = replace(seen, fingerprint={"weights": seen.fingerprint["weights"]})
    assert refusal(lambda: check_weights(targets, without)).startswith(
        "net.pth: the statistics are of other weights (their checksum is another, although"
    )


def test_keys_that_were_missing_are_said(capture, save):
    state = net().state_dict()
    del state["0.bias"]
    seen = capture(save("net.pth", {"model": state}), "--allow-missing-keys")
    with reading() as call:
        check_weights(targets_of("net.pth", leaves_of(seen), seen.fingerprint), seen)
    (note,) = call.notes
    assert note == (
        "net.pth: it lacks 1 key (0.bias), so the statistics are of a model with the values that "
        "it was built with there."
    )
    with reading() as call:
        whole = capture(save("net.pth", net().state_dict()))
        check_weights(targets_of("net.pth", leaves_of(whole)), whole)
    assert not call.notes


def test_a_counter_that_is_missing_is_no_weight(capture, save):
    state = {key: each for key, each in net().state_dict().items() if "tracked" not in key}
    seen = capture(save("net.pth", state))
    targets = targets_of("net.pth", leaves_of(seen), seen.fingerprint)
    check_weights(targets, seen)
    assert targets.missing == {}
    assert "num_batches_tracked" not in targets.layers["1"].tensors
    check_weights(targets_of(save("whole.pth", net().state_dict()), leaves_of(seen)), seen)


def test_an_average_with_its_counter_beside_the_weights(code, save, run):
    code(
        "net.py",
        f"{TEXT}\n    def average():\n        return torch.optim.swa_utils.AveragedModel(net())\n",
    )
    save("x.npy", np.random.default_rng(0).standard_normal((6, 3, 8, 8), dtype=np.float32))
    save("net.pth", {"ema": torch.optim.swa_utils.AveragedModel(net()).state_dict()})
    for flags in (("--checkpoint", "net.pth"), ()):
        what = ("net.py:average", *flags, "--data", "x.npy", "--save-stats", "s.npz")
        assert run("capture", *what).code == 0
        seen = open_statistics("s.npz")
        assert [layer.name for layer in seen.norms] == ["module.1", "module.2.1"]
        targets = targets_of("net.pth", leaves_of(seen), seen.fingerprint)
        assert targets.part == "ema"
        check_weights(targets, seen)


def test_a_tensor_under_two_names_that_a_file_has_once(code, save, run):
    code("tied.py", """
        from torch import nn

        def tied():
            made = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4))
            made[1].weight = made[0].weight
            return made
    """)  # fmt: skip
    save("x.npy", np.random.default_rng(0).standard_normal((6, 4), dtype=np.float32))
    state = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4)).state_dict()
    save_file({key: each for key, each in state.items() if key != "1.weight"}, "net.safetensors")
    what = ("tied.py:tied", "--checkpoint", "net.safetensors", "--data", "x.npy")
    assert run("capture", *what, "--save-stats", "s.npz").code == 0
    seen = open_statistics("s.npz")
    assert seen.fingerprint["checkpoint"] != seen.fingerprint["weights"]
    with reading() as call:
        check_weights(targets_of("net.safetensors", leaves_of(seen), seen.fingerprint), seen)
    assert not call.notes


def test_shards(capture, save, folder):
    seen = capture(save("net.pth", net().state_dict()))
    where = {key: f"{len(key) % 2}.safetensors" for key in net().state_dict()}
    for name in set(where.values()):
        save_file(
            {key: each for key, each in net().state_dict().items() if where[key] == name}, name
        )
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    targets = targets_of("model.safetensors.index.json", leaves_of(seen), seen.fingerprint)
    check_weights(targets, seen)
    assert {key: seen.fingerprint[key] for key in targets.sums} == targets.sums


def test_weights_that_cannot_be_read(capture, save):
    seen = capture(save("net.pth", net().state_dict()))
    save("net.pth", net().state_dict() | {"4.weight": torch.eye(3).to_sparse()})
    assert refusal(lambda: targets_of("net.pth", leaves_of(seen), seen.fingerprint)) == (
        "net.pth: it cannot be said whether the statistics are of its weights, as one of its "
        "tensors cannot be read (4.weight: it is sparse)."
    )


def test_weights_of_several_checkpoints(capture, save):
    """Two captures of the same weights, of which one was loaded from a file in another dtype."""
    state = {
        key: each.half() if each.is_floating_point() else each
        for key, each in net().state_dict().items()
    }
    wide = {key: each.float() if each.is_floating_point() else each for key, each in state.items()}
    parts = [capture(save("half.pth", state)), capture(save("wide.pth", wide))]
    assert parts[0].fingerprint["weights"] == parts[1].fingerprint["weights"]
    assert parts[0].fingerprint["checkpoint"] != parts[1].fingerprint["checkpoint"]
    both = merge_captures(["a", "b"], parts)
    sums = sorted(part.fingerprint["checkpoint"] for part in parts)
    assert both.fingerprint["checkpoint"].split() == sums
    assert both.fingerprint == merge_captures(["b", "a"], parts[::-1]).fingerprint
    for path in ("half.pth", "wide.pth"):
        check_weights(targets_of(path, leaves_of(both), both.fingerprint), both)
    other = merge_captures(["a", "b"], [replace(part, fingerprint={}) for part in parts])
    assert other.fingerprint == {}


def test_a_capture_without_a_fingerprint(capture, save):
    seen = replace(capture(save("net.pth", net().state_dict())), fingerprint={})
    with reading() as call:
        check_weights(targets_of("net.pth", leaves_of(seen), seen.fingerprint), seen)
    (note,) = call.notes
    assert note == (
        "net.pth: the statistics do not say which weights they are of; only the weights of the "
        "BatchNorm layers were compared."
    )
    save("net.pth", net(seed=1).state_dict())
    assert "(the weight of '1' is another in it)" in refusal(
        lambda: check_weights(targets_of("net.pth", leaves_of(seen)), seen)
    )


# ------------------------------------------------------------------ copies

SHARED = """
    import torch
    from torch import nn

    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn = nn.BatchNorm2d(3)
            self.again = nn.Sequential(self.bn)
            self.other = nn.BatchNorm2d(3)
            self.aside = nn.BatchNorm2d(3)

        def forward(self, x):
            return self.other(self.again(self.bn(x)))
"""


def test_a_layer_that_a_file_holds_twice(code, save, run):
    code("shared.py", SHARED)
    save("x.npy", np.random.default_rng(0).standard_normal((6, 3, 8, 8), dtype=np.float32))
    assert run("capture", "shared.py:Shared", "--data", "x.npy", "--save-stats", "s.npz").code == 0
    seen = open_statistics("s.npz")
    assert [layer.name for layer in seen.norms] == ["bn", "other"]
    assert seen.uncalled == ("aside",)
    fresh = nn.BatchNorm2d(3).state_dict()  # as all of the four layers are
    names = ("bn", "again.0", "other", "aside")
    state = {f"{name}.{key}": each.clone() for name in names for key, each in fresh.items()}
    save_file(prefixed(state, "model."), "net.safetensors")
    targets = targets_of("net.safetensors", leaves_of(seen), seen.fingerprint)
    check_weights(targets, seen)
    assert refusal(lambda: copies_of(targets, seen)) == (
        "net.safetensors: 'again.0', which the model has no layer for, holds the same as 'bn' and "
        "'other', so it cannot be said which of them it is a copy of; save the model's state_dict "
        "with torch.save, which keeps a layer with two names once."
    )
    state["other.running_mean"] += 1
    save_file(prefixed(state, "model."), "net.safetensors")
    copies = copies_of(targets_of("net.safetensors", leaves_of(seen)), seen)
    assert {name: [each.name for each in refs] for name, refs in copies.items()} == {
        "bn": ["model.again.0"]
    }
    assert copies["bn"][0].running_mean.name == "model.again.0.running_mean"
    for key in fresh:
        state[f"again.0.{key}"] = state[f"bn.{key}"]  # the same bytes of a file
    targets = targets_of(save("net.pth", state), leaves_of(seen))
    assert copies_of(targets, seen) == {}
