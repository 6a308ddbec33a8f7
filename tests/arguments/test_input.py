"""The input of a command: every rank, axis, layout and dtype, and several as one."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from bncli.arguments.flags import LayerFlags, ReadingFlags
from bncli.arguments.input import open_input, open_values, open_vector, opened
from bncli.arguments.layer import resolve_layer
from bncli.arguments.layer_report import about_pass
from bncli.dtypes import ComputeDtype
from bncli.errors import FileError, TensorError
from tests.commands.samples import CHANNEL_KEYS, DTYPES, column, random, rows_of, table


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((6, 3), "BatchNorm1d"),
        ((6, 3, 4), "BatchNorm1d"),
        ((6, 3, 4, 2), "BatchNorm2d"),
        ((6, 3, 4, 2, 2), "BatchNorm3d"),
    ],
)
def test_rank_chooses_the_kind(run, save, shape, kind):
    x = random(*shape)
    result = run("compute", save("x.npy", x), "-f", "json", "--against", "torch")
    assert result.code == 0
    assert result.report["facts"]["kind"] == kind
    np.testing.assert_allclose(column(result, "mean"), rows_of(x).mean(1), rtol=1e-13)
    np.testing.assert_allclose(column(result, "var"), rows_of(x).var(1), rtol=1e-13)
    np.testing.assert_allclose(
        column(result, "unbiased_var"), rows_of(x).var(1, ddof=1), rtol=1e-13
    )
    np.testing.assert_array_equal(column(result, "min"), rows_of(x).min(1))
    np.testing.assert_array_equal(column(result, "max"), rows_of(x).max(1))


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -2, -3, -4])
def test_channel_axis_counts_from_either_end(run, save, axis):
    x = random(2, 3, 4, 5)
    result = run(
        "compute", save("x.npy", x), "--channel-axis", axis, "-f", "json", "--against", "torch"
    )
    assert result.code == 0
    assert result.report["facts"]["channel_axis"] == axis % 4
    assert result.report["facts"]["num_features"] == x.shape[axis]
    np.testing.assert_allclose(column(result, "mean"), rows_of(x, axis).mean(1), rtol=1e-13)


def test_a_tensor_inside_a_file(run, save):
    a, b = random(4, 3, seed=1), random(4, 3, seed=2)
    save("two.npz", a=a, b=b)
    save("nested.pt", {"batch": {"x": torch.from_numpy(a), "y": torch.from_numpy(b)}})
    save("list.pt", [torch.from_numpy(a), torch.from_numpy(b)])
    for spec in ("two.npz::b", "nested.pt::batch.y", "nested.pt::y", "list.pt::1"):
        result = run("compute", spec, "-f", "json")
        assert result.code == 0, result.stderr
        assert result.report["facts"]["input"].startswith(spec.split("::")[0] + "::")
        np.testing.assert_allclose(column(result, "mean"), rows_of(b).mean(1), rtol=1e-13)


def test_the_only_tensor_of_a_file_needs_no_name(run, save):
    x = random(4, 3)
    for spec in (
        save("x.npz", x=x),
        save("x.pt", torch.from_numpy(x)),
        save("d.pth", {"x": torch.from_numpy(x)}),
    ):
        result = run("compute", spec, "-f", "json")
        assert result.code == 0, result.stderr
        np.testing.assert_allclose(column(result, "mean"), rows_of(x).mean(1), rtol=1e-13)


def test_standard_input(run_process):
    x = random(4, 3)
    stream = io.BytesIO()
    np.save(stream, x)
    result = run_process("compute", "-", "-f", "json", stdin=stream.getvalue())
    assert result.code == 0, result.stderr
    np.testing.assert_allclose(column(result, "mean"), rows_of(x).mean(1), rtol=1e-13)


def test_strided_and_transposed_tensors(run, save):
    x = torch.from_numpy(random(4, 3, 6, 5))
    for name, given in {
        "last.pt": x.contiguous(memory_format=torch.channels_last),
        "step.pt": x[:, :, ::2],
        "turned.pt": x.transpose(0, 1),
        "wide.pt": x[:, :1].expand(4, 3, 6, 5),
    }.items():
        result = run("compute", save(name, given), "-f", "json", "--against", "torch")
        assert result.code == 0, result.stdout
        np.testing.assert_allclose(
            column(result, "mean"), rows_of(given.numpy()).mean(1), rtol=1e-12
        )


def test_fortran_order_and_foreign_byte_order(run, save):
    x = random(4, 3, 5)
    for name, given in (("f.npy", np.asfortranarray(x)), ("big.npy", x.astype(">f4"))):
        result = run("compute", save(name, given), "-f", "json", "--save-output", "y.npy")
        np.testing.assert_allclose(column(result, "mean"), rows_of(x).mean(1), rtol=1e-13)
        expected = torch.nn.BatchNorm1d(3)(torch.from_numpy(x)).detach()
        np.testing.assert_allclose(np.load("y.npy"), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sizes", [(2, 3), (1, 1), (5, 1, 7)])
def test_several_inputs_are_one_population(run, save, sizes):
    parts = [random(n, 3, 4, seed=n, mean=5.0) for n in sizes]
    names = [save(f"{i}.npy", part) for i, part in enumerate(parts)]
    whole = save("whole.npy", np.concatenate(parts))
    pooled = run("compute", *names, "-f", "json", "--against", "torch")
    single = run("compute", whole, "-f", "json")
    assert pooled.code == 0
    for key in sorted(CHANNEL_KEYS - {"channel"}):
        np.testing.assert_allclose(
            column(pooled, key), column(single, key), rtol=1e-12, err_msg=key
        )
    assert pooled.report["facts"]["count"] == 4 * sum(sizes)
    assert pooled.report["facts"]["input"] == " ".join(names)


def test_shards_may_differ_in_every_axis_but_the_channels(run, save):
    a, b = random(2, 3, 4), random(5, 3, 7, seed=1)
    result = run("compute", save("a.npy", a), save("b.npy", b), "-f", "json")
    assert result.code == 0
    values = np.concatenate([rows_of(a), rows_of(b)], axis=1)
    np.testing.assert_allclose(column(result, "mean"), values.mean(1), rtol=1e-13)
    np.testing.assert_allclose(column(result, "var"), values.var(1), rtol=1e-13)


def test_one_value_a_channel_in_each_shard_is_enough(run, save):
    result = run(
        "compute", save("a.npy", random(1, 3)), save("b.npy", random(1, 3, seed=1)), "-f", "json"
    )
    assert result.code == 0
    assert result.report["facts"]["count"] == 2


@pytest.mark.parametrize("stored", ["int8", "uint8", "int64", "uint64", "bool"])
@pytest.mark.parametrize("dtype", list(DTYPES))
def test_integers_and_booleans_are_cast_on_request(run, save, stored, dtype):
    x = (np.arange(24).reshape(8, 3) % 7).astype(stored)
    result = run("compute", save("x.npy", x), "--dtype", dtype, "-f", "json", "--against", "torch")
    assert result.code == 0, result.stdout
    assert result.report["facts"]["dtype"] == dtype
    np.testing.assert_allclose(column(result, "mean"), rows_of(x).mean(1), rtol=1e-13)


def test_a_cast_rounds_the_input_first(run, save):
    x = random(16, 3, mean=300.0).astype(np.float64)
    for dtype, cast in DTYPES.items():
        rounded = torch.from_numpy(x).to(cast).double().numpy()
        result = run("compute", save("x.npy", x), "--dtype", dtype, "-f", "json")
        np.testing.assert_allclose(column(result, "mean"), rows_of(rounded).mean(1), rtol=1e-13)
        np.testing.assert_allclose(column(result, "var"), rows_of(rounded).var(1), rtol=1e-11)


def test_inputs_of_different_dtypes_need_a_common_one(run, save):
    a, b = random(4, 3), random(4, 3, seed=1).astype(np.float64)
    names = save("a.npy", a), save("b.npy", b)
    assert run("compute", *names).code == 2
    result = run("compute", *names, "--dtype", "float64", "-f", "json")
    whole = np.concatenate([rows_of(a), rows_of(b)], axis=1)
    np.testing.assert_allclose(column(result, "mean"), whole.mean(1), rtol=1e-13)


@pytest.mark.parametrize(
    ("chosen", "channels"),
    [
        ("0", [0]),
        ("3,1", [1, 3]),
        ("2-4", [2, 3, 4]),
        ("0,2-3,3,0", [0, 2, 3]),
        (" 1 , 4 ", [1, 4]),
    ],
)
def test_channel_chooses_rows_and_nothing_else(run, save, chosen, channels):
    x = save("x.npy", random(8, 5, 3))
    whole = run("compute", x, x, "--per-input", "-f", "json")
    some = run("compute", x, x, "--per-input", "--channel", chosen, "-f", "json")
    for key in ("channels", "output", "spread"):
        assert [row["channel"] for row in table(some, key)] == channels
        assert table(some, key) == [table(whole, key)[c] for c in channels]
    assert [row["channel"] for row in table(some, "inputs")] == channels * 2
    assert some.report["facts"]["num_features"] == 5


# ---------------------------------------------------------------------------- numbers in text


@pytest.fixture
def written(folder):
    """Write a text into the current folder."""

    def written(name, text):
        (folder / name).write_text(text)
        return name

    return written


def test_typed_numbers_are_float32_unless_float64_is_asked_for(written):
    for tensor in (
        opened(written("x.csv", "0.1\n16777217\n"), None),
        opened(written("x.json", "[[0.1], [16777217]]"), ComputeDtype.FLOAT32),
        open_values("[[0.1], [16777217]]", ComputeDtype.FLOAT16),
    ):
        assert tensor.dtype == "float32"
        assert tensor.read().tolist() == [[float(np.float32(0.1))], [16777216]]
    for tensor in (
        opened("x.csv", ComputeDtype.FLOAT64),
        open_values("[[0.1], [16777217]]", ComputeDtype.FLOAT64),
    ):
        assert tensor.dtype == "float64"
        assert tensor.read().tolist() == [[0.1], [16777217]]
    given = open_input(["x.csv"], 1, ComputeDtype.FLOAT64)
    assert (given.dtype, given.cast) == ("float64", None)
    half = open_input(["x.csv"], 1, ComputeDtype.FLOAT16)
    assert half.values(half.tensors[0]).tolist() == [[float(np.float16(0.1))], [np.inf]]


def test_a_file_of_float32_is_cast_as_it_is_stored(save):
    """Its decimals are gone, so that float64 shows what float32 made of them."""
    tensor = opened(save("x.npy", np.array([[0.1]], np.float32)), ComputeDtype.FLOAT64)
    assert (tensor.dtype, tensor.read().tolist()) == ("float32", [[float(np.float32(0.1))]])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "--values: write the samples as lists, such as '[[1, 2], [3, 4]]'."),
        ("1,2;3,4", "--values: write the samples as lists, such as '[[1, 2], [3, 4]]'."),
        ("x.npy", "--values: write the samples as lists, such as '[[1, 2], [3, 4]]'."),
        ("[[1, 2], [3]]", "--values: [1] has length 1, and the lists before it 2; an array has"),
        ("[[1, \udcff]]", "--values: [0][1] is '?', not a number."),
    ],
)
def test_what_is_typed_wrong_is_one_sentence(text, sentence):
    with pytest.raises(FileError) as refused:
        open_values(text, None)
    assert str(refused.value).startswith(sentence)


def test_a_list_of_numbers_is_told_what_to_write():
    with pytest.raises(TensorError) as refused:
        ReadingFlags(values="[1, 2, 3]").open([])
    assert str(refused.value) == (
        "--values: shape [3] has 1 axis; write [[1], [2]] for two samples, or [[1, 2]] for one "
        "sample of two channels."
    )
    with pytest.raises(TensorError, match=r"^--values: shape \[1, 0\] holds no value"):
        ReadingFlags(values="[[]]").open([])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("v.csv", "1.5\n2\n"),
        ("v.csv", "scale\n1.5\n2\n"),
        ("v.csv", "1.5,2\n"),
        ("v.json", "[1.5, 2]"),
        ("v.json", "[[1.5], [2]]"),
    ],
)
def test_a_row_or_a_column_of_typed_numbers_is_a_vector(written, name, text):
    vector = open_vector(written(name, text), "weight cannot")
    assert vector.read().tolist() == [1.5, 2]
    layer = resolve_layer(LayerFlags(weight=name), ReadingFlags(values="[[1, 2], [3, 4]]").open([]))
    assert layer.weight.tolist() == [1.5, 2]


def test_a_stored_matrix_is_no_vector(save, written):
    for spec in (save("v.npy", np.ones((2, 1), np.float32)), written("v.csv", "1,2\n3,4\n")):
        assert open_vector(spec, "weight cannot").ndim == 2


def test_a_typed_input_is_about_its_flag_and_read_from_no_file(save):
    typed = ReadingFlags(values="[[1, 2], [3, 4]]").open([])
    assert (typed.label, typed.read, typed.about) == ("--values", (), (("", "--values"),))
    layer = resolve_layer(LayerFlags(), typed)
    assert about_pass(typed, layer) == (("", "--values"),)
    stored = open_input([save("x.npz", a=np.ones((3, 2))) + "::a"], 1, None)
    assert (stored.read, stored.about) == (("x.npz",), (("x.npz", "a"),))
