"""A live model on the command line: its arguments, and the session that the flags open."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from bncli.arguments.model import ModelFlags, open_session, parse_arguments
from bncli.arguments.options import DeviceName
from bncli.dtypes import ComputeDtype
from bncli.errors import BncliError, FileError, MissingBackendError, ModelError, UsageError
from tests.live.code import NET, code

__all__ = ["code"]


@pytest.fixture
def net(code, save):
    """A model's file, data for it, and weights."""
    code("net.py", NET)
    torch.manual_seed(0)
    save("x.npy", np.random.default_rng(0).standard_normal((6, 3, 8, 8), dtype=np.float32))
    return "net.py:Net"


def refusal(flags: ModelFlags, model: str, error: type[BncliError] = UsageError) -> str:
    with pytest.raises(error) as caught:
        open_session(flags, model)
    return str(caught.value)


# ------------------------------------------------------------------ --arg


def test_values_are_python_literals_or_texts():
    assert parse_arguments([
        "n=21", "lr=1e-3", "deep=True", "none=None", "sizes=[1, (2, 3)]", "names={'a': 1}",
        "arch=resnet50", "path=a=b", "text='21'", "empty=", " spaced = 3 ", "minus=-1", "odd=[1,",
        r"raw=\d", "deep_nest=" + "(" * 5000, "true_text='true'",
    ]) == {
        "n": 21, "lr": 1e-3, "deep": True, "none": None, "sizes": [1, (2, 3)], "names": {"a": 1},
        "arch": "resnet50", "path": "a=b", "text": "21", "empty": "", "spaced": 3, "minus": -1,
        "odd": "[1,", "raw": r"\d", "deep_nest": "(" * 5000, "true_text": "true",
    }  # fmt: skip
    assert parse_arguments([]) == {}


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["n"], "--arg n: write NAME=VALUE, such as num_classes=21."),
        (["2n=3"], "--arg 2n=3: write NAME=VALUE, such as num_classes=21."),
        (["=3"], "--arg =3: write NAME=VALUE, such as num_classes=21."),
        (["n=1", "n=2"], "--arg n is given twice; leave one out."),
        (["deep=false"], "--arg deep=false: write deep=False, or deep='\"false\"' for the text."),
        (["deep=NULL"], "--arg deep=NULL: write deep=None, or deep='\"NULL\"' for the text."),
    ],
)
def test_arguments_that_are_refused(texts, said):
    with pytest.raises(UsageError) as caught:
        parse_arguments(texts)
    assert str(caught.value) == said


# ------------------------------------------------------------------ the session


def test_what_the_flags_open(net, save):
    trained = nn.BatchNorm2d(8)
    state = {
        "state_dict": {
            "conv.weight": torch.ones(8, 3, 3, 3),
            "conv.bias": torch.ones(8),
            **{f"bn.{key}": each.double() for key, each in trained.state_dict().items()},
            "head.weight": torch.ones(5, 8, 1, 1),
        }
    }
    del state["state_dict"]["bn.num_batches_tracked"]
    flags = ModelFlags(
        checkpoint=save("net.pth", state), allow_missing_keys=True,
        arg=["classes=5", "width=8"], frozen=["bn"], seed=3, data=["x.npy"], batch_size=4,
        batches=1, dtype=ComputeDtype.FLOAT32,
    )  # fmt: skip
    session = open_session(flags, net)
    assert (session.seed, session.device) == (3, "cpu")
    assert [(layer.name, layer.frozen) for layer in session.layers] == [("bn", True)]
    assert torch.equal(session.model.get_parameter("conv.weight"), torch.ones(8, 3, 3, 3))
    assert [batch.samples for batch in session.data] == [4]
    source = session.source
    assert json.loads(json.dumps(source)) == source
    assert {key: source[key] for key in ("model", "class", "data", "seed", "arguments")} == {
        "model": "net.py:Net", "class": "net.Net", "data": ["x.npy"], "seed": 3,
        "arguments": ["classes=5", "width=8"],
    }  # fmt: skip
    assert source["checkpoint"] == {
        "path": "net.pth", "part": "state_dict", "keys": 7, "missing": ["head.bias"],
        "converted": ["float64 to float32 in 4 tensors"], "n_averaged": None,
    }  # fmt: skip
    assert source["torch"] == str(torch.__version__)
    with session.open():
        capture = session.capture(renew=False)
    assert capture.source == source
    assert sorted(capture.fingerprint) == ["checkpoint", "running_statistics", "weights"]


def test_weights_without_a_checkpoint_follow_the_seed(net):
    def weights(seed):
        torch.manual_seed(seed or 9)  # which does not matter
        session = open_session(ModelFlags(data=["x.npy"], seed=seed), net)
        return session.model.get_parameter("conv.weight")

    before = torch.get_rng_state()
    assert torch.equal(weights(None), weights(0))
    assert not torch.equal(weights(1), weights(0))
    torch.set_rng_state(before)
    open_session(ModelFlags(data=["x.npy"]), net)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_missing_or_does_not_go_together(net, monkeypatch):
    assert refusal(ModelFlags(), net) == (
        "--data is missing: name files of tensors, or a loader as file.py:name."
    )
    assert refusal(ModelFlags(data=["x.npy"], allow_missing_keys=True), net) == (
        "--allow-missing-keys is for --checkpoint, which is not given."
    )
    assert refusal(ModelFlags(data=["y.npy"]), net, FileError).startswith("y.npy: there is no such")
    assert refusal(ModelFlags(data=["x.npy"], arg=["depth=3"]), net).startswith("--arg depth: ")
    assert refusal(ModelFlags(data=["x.npy"]), "net.py:Nt", ModelError).endswith("mean Net?")
    assert refusal(ModelFlags(data=["x.npy"], frozen=["stem.*"]), net).startswith("--frozen stem.*")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert ModelFlags(input_key=["x"]).facts["input_key"] == ModelFlags(input_key=["x"]).keys == "x"
    assert ModelFlags(input_key=["x", "mask"]).keys == ("x", "mask")
    assert ModelFlags(input_key=["x", "mask"]).facts["input_key"] == ["x", "mask"]
    cuda = ModelFlags(data=["x.npy"], device=DeviceName.CUDA)
    assert refusal(cuda, net, MissingBackendError) == (
        "--device cuda: PyTorch sees no CUDA device here; leave --device out, or run where there "
        "is one."
    )


def test_flags_that_do_not_apply():
    ModelFlags().refuse_any("a statistics file")
    for flags, flag in (
        (ModelFlags(data=["x"]), "data"), (ModelFlags(seed=0), "seed"),
        (ModelFlags(batch_size=1), "batch-size"),
        (ModelFlags(allow_missing_keys=True), "allow-missing-keys"),
        (ModelFlags(device=DeviceName.CPU), "device"),
    ):  # fmt: skip
        with pytest.raises(UsageError) as caught:
            flags.refuse_any("a statistics file")
        assert str(caught.value) == f"--{flag} does not apply to a statistics file; leave it out."
