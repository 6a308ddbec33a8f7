"""Values as a tensor's dtype holds them: rounded once, and refused where that says too little."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bncli.dtypes import DTYPES
from bncli.errors import TensorError
from bncli.loaders.patches import rounded
from bncli.loaders.patches.rounding import MOST_LOST, stored_values
from bncli.model import TensorRef

from .written import nearest

HALF = ("float16", "bfloat16")
FLOATS = (*HALF, "float32", "float64")


def ref(dtype, shape=(3,), name="bn.running_mean"):
    return TensorRef(name, Path("net.pth"), shape, dtype, (1,) * len(shape), None)


def of(values, dtype, name="bn.running_mean"):
    values = np.asarray(values)
    return rounded(ref(dtype, values.shape, name), values)


@given(
    st.sampled_from(HALF),
    st.floats(allow_nan=False, allow_infinity=False, min_value=-60000, max_value=60000),
)
def test_any_value_is_rounded_once_to_the_nearest(dtype, value):
    assert of([value], dtype)[0] == nearest(value, dtype)


@given(
    st.sampled_from(HALF),
    st.integers(0, 0x7BFF),
    st.sampled_from([-(2.0**-40), -(2.0**-52), 0.0, 2.0**-52, 2.0**-40]),
)
def test_values_beside_a_tie_go_to_their_own_side(dtype, bits, beside):
    # Half way between two neighbours, and so near to it that float32 would make it a tie.
    pair = np.array([bits, bits + 1], np.uint16)
    one, two = (
        pair.view(np.float16).astype(float)
        if dtype == "float16"
        else (pair.astype(np.uint32) << 16).view(np.float32).astype(float)
    )
    if not np.isfinite(two):
        return
    value = (one + two) / 2 * (1 + beside)
    assert of([value], dtype)[0] == nearest(value, dtype)


def test_rounding_by_way_of_float32_would_give_another_value():
    value = 1 + 2.0**-8 + 2.0**-30  # float32 drops the last part, and leaves a tie
    twice = torch.tensor(value, dtype=torch.float64).float().bfloat16().item()
    assert of([value], "bfloat16")[0] == 1 + 2.0**-7 != twice
    value = 1 + 2.0**-11 + 2.0**-30
    assert of([value], "float16")[0] == 1 + 2.0**-10 != float(np.float16(np.float32(value)))


@given(st.lists(st.floats(allow_nan=False, width=64, min_value=-1e38, max_value=1e38), min_size=1))
def test_float32_is_rounded_as_numpy_does_and_float64_not_at_all(values):
    values = np.array(values)
    assert np.array_equal(of(values, "float32"), values.astype(np.float32).astype(float))
    assert np.array_equal(of(values, "float64"), values)


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_bits_are_those_that_pytorch_reads(dtype):
    values = np.array([[0.1, -2.7, 1e-6], [300.0, -0.0, 1.0]])
    stored = stored_values(ref(dtype, (2, 3)), values)
    read = torch.from_numpy(stored.view("i2") if dtype in HALF else stored)
    read = read.view(getattr(torch, dtype)).double().numpy()
    assert np.array_equal(read, of(values, dtype))
    assert np.signbit(read[1, 1])


def test_flat_values_take_the_shape_of_the_tensor():
    values = np.arange(3.0)
    assert rounded(ref("float32", (1, 3, 1, 1)), values).shape == (1, 3, 1, 1)
    with pytest.raises(TensorError, match=r"^net.pth::bn.running_mean: it has the shape \(3,\)"):
        rounded(ref("float32"), np.zeros(4))


@pytest.mark.parametrize(("value", "shown"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
@pytest.mark.parametrize("dtype", FLOATS)
def test_what_is_not_finite_is_refused(dtype, value, shown):
    with pytest.raises(TensorError) as error:
        of([1, value, 3], dtype)
    assert str(error.value) == (
        f"net.pth::bn.running_mean: channel 1 gets {shown}, which is not finite; look for the "
        "cause in the data or in the layers before it."
    )


@pytest.mark.parametrize(
    ("dtype", "fits", "too_large"),
    [
        ("float16", 65519.99, 65520.0),  # half way to the value that would come next
        ("bfloat16", 3.3961775292304e38, 3.3961775292305e38),
        ("float32", 3.4028235677973e38, 3.4028235677974e38),
    ],
)
def test_overflow_names_the_channel_with_the_largest_value(dtype, fits, too_large):
    assert np.abs(of([1, -fits, 3], dtype)[1]) == DTYPES[dtype].largest
    with pytest.raises(TensorError, match=rf"channel 2 gets .*, which {dtype} cannot hold; "):
        of([1, -too_large, too_large * 1.01], dtype)


@pytest.mark.parametrize("name", ["a.running_var", "b/moving_variance", "c._variance", "c.bn.var"])
def test_a_variance_that_would_become_zero_is_refused(name):
    with pytest.raises(TensorError) as error:
        of([1.0, 2e-8, 1e-9], "float16", name)
    assert str(error.value) == (
        f"net.pth::{name}: channel 1 gets 2e-08, which would become 0 in float16; convert the "
        "statistics to float32 in the file, and run again."
    )


def test_a_variance_may_lose_what_does_not_matter():
    tiny = DTYPES["float16"].smallest_normal
    assert of([0.0, tiny, 1.0], "float16", "running_var")[1] == tiny
    unit = DTYPES["float16"].tiniest
    enough = (0.5 / MOST_LOST + 1) * unit  # even half a unit is less than that here
    assert of([enough], "float16", "running_var")[0]
    with pytest.raises(TensorError, match=r"it gets 8.941e-08, which would become 1.192e-07"):
        of([1.5 * unit], "float16", "running_var")
    with pytest.raises(TensorError, match="which would become 0 in float32"):
        of([1e-46, 2e-46], "float32", "running_var")
    assert of([1e-46], "float64", "running_var")[0] == 1e-46


def test_a_mean_may_become_zero():
    assert of([1e-9, 1.0], "float16")[0] == 0


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool", "complex64", "float8_e4m3fn"])
def test_statistics_need_a_float(dtype):
    with pytest.raises(TensorError, match=rf"its dtype {dtype} is not one for statistics; convert"):
        of([0.0, 1.0], dtype)


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", *FLOATS])
def test_a_counter_may_be_an_integer_or_a_float(dtype):
    assert of(np.array(200), dtype, "bn.num_batches_tracked") == 200


@pytest.mark.parametrize(
    ("value", "dtype"), [(128, "int8"), (-1, "uint8"), (1 << 31, "int32"), (1 << 63, "int64")]
)
def test_a_counter_has_to_fit(value, dtype):
    with pytest.raises(TensorError, match=rf"{dtype} cannot hold the counter {value}; leave"):
        of(np.array(value, np.uint64 if value >= 1 << 63 else np.int64), dtype)
    with pytest.raises(TensorError, match="float16 cannot hold"):
        of(np.array(70_000), "float16", "bn.num_batches_tracked")


def test_a_large_counter_is_exact_in_the_file():
    assert stored_values(ref("int64", ()), np.array((1 << 62) + 1)) == (1 << 62) + 1
    assert rounded(ref("int64", (0,)), np.zeros(0, np.int64)).shape == (0,)
    assert rounded(ref("float16", (0,), "running_var"), np.zeros(0)).shape == (0,)
