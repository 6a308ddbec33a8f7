"""The table of conventions: what frameworks publish."""

from __future__ import annotations

import pytest

from bncli.errors import UsageError
from bncli.running_stats.frameworks import CONVENTIONS, convention

every_convention = pytest.mark.parametrize("row", CONVENTIONS, ids=lambda row: row.name)


def test_names_are_unique_and_pytorch_comes_first():
    names = [row.name for row in CONVENTIONS]
    assert names[0] == "pytorch"
    assert len(set(names)) == len(names) == 30
    assert len({row.framework for row in CONVENTIONS}) == len(names)


@every_convention
def test_a_row_is_complete(row):
    for text in (row.framework, row.source, row.channel_axis, *row.names.__slots__):
        assert text.strip()
    for name in row.names.__slots__:
        assert getattr(row.names, name).strip()
    assert float(row.eps) > 0
    assert row.momentum is None or 0 <= float(row.momentum) <= 1
    assert row.note == "" or row.note.endswith(".")


@pytest.mark.parametrize(
    ("name", "weighs", "momentum", "eps", "variance", "initial_var"),
    [
        ("pytorch", "new", 0.1, 1e-5, "unbiased", 1),
        ("keras3", "old", 0.99, 1e-3, "biased", 1),
        ("tf-fused", "old", 0.99, 1e-3, "unbiased", 1),
        ("flax", "old", 0.99, 1e-5, "biased", 1),
        ("onnx", "old", 0.9, 1e-5, "biased", 1),
        ("mxnet", "old", 0.9, 1e-3, "biased", 1),
        ("caffe", "old", 0.999, 1e-5, "unbiased", 0),
        ("chainer", "old", 0.9, 2e-5, "unbiased", 1),
        ("tinygrad", "new", 0.1, 1e-5, "unbiased", 1),
        ("burn", "new", 0.1, 1e-5, "biased", 1),
        ("darknet", "old", 0.99, 1e-6, "unbiased", 0),
    ],
)
def test_published_defaults(name, weighs, momentum, eps, variance, initial_var):
    row = convention(name)
    assert (row.weighs, float(row.momentum), float(row.eps)) == (weighs, momentum, eps)
    assert (row.variance, row.initial_var) == (variance, initial_var)


def test_the_defaults_of_the_installed_pytorch():
    import torch

    module = torch.nn.BatchNorm1d(1)
    row = convention("pytorch")
    assert (module.momentum, module.eps) == (float(row.momentum), float(row.eps))
    assert (float(module.running_mean), float(module.running_var)) == (
        row.initial_mean, row.initial_var,
    )  # fmt: skip
    assert set(module.state_dict()) - {"num_batches_tracked"} == {
        row.names.weight, row.names.bias, row.names.running_mean, row.names.running_var,
    }  # fmt: skip


def test_a_name_that_is_not_there_brings_the_nearest():
    with pytest.raises(UsageError, match=r"--convention keras: .* did you mean keras[32]"):
        convention("keras")
    with pytest.raises(UsageError, match=r"--to zzz: .* bncli conventions lists them"):
        convention("zzz", "--to")
    assert convention("PyTorch").name == "pytorch"


def test_what_few_frameworks_do():
    """As each framework's source has it: everybody else begins at 0 and 1."""

    def those(says):
        return {row.name for row in CONVENTIONS if says(row)}

    assert those(lambda row: row.initial_var == 0) == {
        "haiku", "sonnet", "caffe", "chainer-4", "darknet",
    }  # fmt: skip
    assert those(lambda row: row.initial_var not in {0, 1} or row.initial_mean != 0) == set()
    assert those(lambda row: row.debias == "divided") == {
        "haiku", "sonnet", "equinox-batch", "caffe",
    }  # fmt: skip
    assert those(lambda row: row.debias == "first") == {"equinox"}
    assert those(lambda row: row.least_eps == 1.001e-5) == {"tf-fused", "tf-v1"}
    assert those(lambda row: row.least_eps) == {"tf-fused", "tf-v1"}
    assert those(lambda row: row.eps_outside_root) == {"darknet"}
    assert those(lambda row: row.momentum is None) == {"haiku"}
    assert those(lambda row: row.one_value == "refused") == {"pytorch", "mlx", "flux"}
    assert those(lambda row: row.one_value == "skipped") == {"paddle", "paddle-cudnn"}


def test_no_more_than_three_names_are_offered():
    with pytest.raises(UsageError) as caught:
        convention("chainer-44")
    assert str(caught.value).endswith("did you mean chainer-4, chainer or candle?")


@pytest.mark.parametrize(
    ("library", "names"),
    [
        ("TensorFlow", "keras3, tf-fused, tf-unfused, keras2 or tf-v1"),
        ("tf", "tf-fused, tf-unfused or tf-v1"),
        ("jax", "flax, haiku, equinox or equinox-batch"),
    ],
)
def test_a_library_stands_for_all_its_conventions(library, names):
    with pytest.raises(UsageError) as caught:
        convention(library)
    assert str(caught.value).endswith(f"no such convention; did you mean {names}?")
