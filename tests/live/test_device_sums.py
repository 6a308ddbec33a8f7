"""The sums that torch takes of tensors are those of the same values in arrays."""

import numpy as np
import pytest
import torch

from bncli.errors import TensorError
from bncli.live import device_sums
from bncli.live.device_sums import TensorBlocks
from bncli.live.watching import add_input
from bncli.moments.batches import BatchSums
from tests.moments.exact_batches import check, check_moments, in_layouts, same_bits

LAYOUTS = [
    "contiguous",
    "channels last",
    "Fortran",
    "samples last",
    "sequence first",
    "every other",
]


@pytest.fixture(params=[32, 200, 1 << 12], autouse=True)
def small_blocks(request, monkeypatch):
    """Blocks so small that small tensors have many."""
    monkeypatch.setattr(device_sums, "BLOCK_VALUES", request.param)
    device_sums._kept.__dict__.clear()
    yield
    device_sums._kept.__dict__.clear()


def summed(batches, **flags):
    sums = BatchSums(batches[0].shape[1], **flags)
    for x in batches:
        sums.take(x, TensorBlocks)
    return sums.result()


def normal(shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(6, 3), (4, 2, 9), (3, 2, 5, 7), (2, 3, 3, 4, 5)], ids=str)
def test_dtypes_and_shapes(dtype, shape):
    batches = [torch.from_numpy(normal(shape, i) + i).to(dtype) for i in range(2)]
    check(summed(batches), [x.double().numpy() for x in batches])


@pytest.mark.parametrize("layout", LAYOUTS[:2])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_moments_alone(dtype, layout):
    arrays = [in_layouts(normal((4, 3, 5, 30), i) + 20 * i)[layout] for i in range(3)]
    batches = [torch.from_numpy(x).to(dtype) for x in arrays]
    check_moments(summed(batches, moments_only=True), [x.double().numpy() for x in batches])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_layouts(layout, dtype):
    x = in_layouts(normal((6, 4, 4, 30), dtype=dtype))[layout]
    tensor = torch.from_numpy(x)
    check(summed([tensor]), [x])
    np.testing.assert_array_equal(tensor.numpy(), x)


@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_means_far_from_zero(layout):
    x = normal((4, 40, 90))
    x[:, ::7] += 1e6
    x[:, 1] = 3
    x = in_layouts(x)[layout]
    check(summed([torch.from_numpy(x)]), [x])


@pytest.mark.parametrize("layout", LAYOUTS[:3])
def test_equal_values_are_counted(layout):
    x = np.random.default_rng(3).integers(-2, 3, (6, 5, 4, 20)).astype(np.float32)
    x[:, 0] = 0
    x[:, 2] = np.clip(x[:, 2], 0, 1)
    x[:, 3, 0, 0] = -0.0
    x = in_layouts(x)[layout]
    check(summed([torch.from_numpy(x)]), [x])


def test_nan_infinities_and_values_without_a_square():
    x = normal((4, 6, 30))
    x[0, 0, 0] = np.nan
    x[1, 1] = np.inf
    x[2, 2, 3] = -np.inf
    x[:, 3] *= 1e-200
    x[:, 4] *= 1e200
    arrays = BatchSums(6)
    arrays.add(x)
    wanted, got = arrays.result(), summed([torch.from_numpy(x)])
    for name in wanted.__slots__:
        one, other = getattr(got, name), getattr(wanted, name)
        atol = 1e-13 if name in {"offset", "sample_mean", "batch_mean"} else 0
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=atol, err_msg=name)


def test_every_sample_as_a_batch():
    x = normal((5, 3, 40))
    check(summed([torch.from_numpy(x)], per_sample=True), [x[i : i + 1] for i in range(5)])


def test_tensors_of_inference_and_of_training_take_turns():
    with torch.inference_mode():
        x = torch.from_numpy(normal((4, 3, 20))) * 1
        one = summed([x])
    y = torch.from_numpy(normal((4, 3, 20))).requires_grad_()
    assert same_bits(one, summed([y]))
    assert y.grad_fn is None


def test_what_a_device_sends_is_what_it_has():
    tensors = [torch.rand(2, 3), torch.rand(1, 3, 4, dtype=torch.float64)]
    flat = device_sums._joined(tensors).numpy()
    for one, other in zip(device_sums._split(flat, tensors), tensors, strict=True):
        np.testing.assert_array_equal(one, other.double().numpy())


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.zeros(4), r"shape \(4,\) has not"),
        (torch.zeros(0, 3), r"shape \(0, 3\) has not"),
        (torch.zeros(2, 3, dtype=torch.complex64), "complex64 have no BatchNorm statistics"),
    ],
)
def test_what_has_no_statistics_is_refused(x, words):
    with pytest.raises(TensorError, match=words):
        TensorBlocks(x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_layers_input_on_the_cpu_is_taken_without_a_copy(dtype):
    x = torch.from_numpy(normal((4, 3, 5, 6))).to(dtype).to(memory_format=torch.channels_last)
    sums = BatchSums(3)
    add_input(sums, x.requires_grad_())
    check(sums.result(), [x.detach().double().numpy()])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_on_a_cuda_device(dtype):
    x = torch.from_numpy(normal((4, 3, 50)) + 5).to(dtype)
    check(summed([x.cuda()]), [x.double().numpy()])
