"""Every backend: runs each kind in each mode and every norm, and says what is missing."""

from __future__ import annotations

import pkgutil
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from bncli import backends
from bncli.backends import BackendName, backend, installed
from bncli.backends.interface import (
    NORM_QUANTITIES,
    QUANTITIES,
    Averages,
    Backend,
    BatchNormCall,
    ChoosesPath,
    GivesSteps,
    IsRepeated,
    NormCall,
    RunsNorms,
    SteppingCall,
    StepsModule,
)
from bncli.dtypes import decode, encode
from bncli.errors import MissingBackendError
from bncli.model import BatchNormSettings, RunningStats
from bncli.norms import BATCH, INSTANCE, LAYER, RMS, describe

SHAPES = {"1d rows": (6, 3), "1d": (4, 3, 5), "2d": (3, 3, 4, 5), "3d": (2, 3, 3, 2, 4)}
MODES = [
    BatchNormSettings(training=training, affine=affine, track_running_stats=track)
    for training in (True, False)
    for affine in (True, False)
    for track in (True, False)
]
ROUNDING = {"float16": 1e-2, "bfloat16": 8e-2, "float32": 2e-5, "float64": 1e-10}


@pytest.fixture(params=list(BackendName), ids=lambda name: name.value)
def name(request):
    return request.param


def call_of(shape, settings, dtype="float64", channel_axis=1, seed=0) -> BatchNormCall:
    rng = np.random.default_rng(seed)
    wide = "float64" if dtype == "float64" else "float32"
    channels = shape[channel_axis]
    kept = settings.affine or settings.track_running_stats
    parameter_dtype = wide if kept else dtype

    def rounded(values):
        return decode(encode(values, dtype), dtype)

    def parameters(values):
        return values.astype(wide).astype(np.float64)

    return BatchNormCall(
        x=rounded(rng.normal(1, 2, shape)),
        grad_output=rounded(rng.normal(size=shape)),
        dtype=dtype,
        parameter_dtype=parameter_dtype,
        channel_axis=channel_axis,
        settings=settings,
        weight=parameters(rng.normal(size=channels)) if settings.affine else None,
        bias=parameters(rng.normal(size=channels)) if settings.affine else None,
        running=RunningStats(
            parameters(rng.normal(size=channels)), parameters(rng.uniform(0.5, 2, channels)), 3
        )
        if settings.track_running_stats
        else None,
    )


def expected_quantities(call: BatchNormCall) -> dict[str, np.ndarray]:
    """By the formulas, in NumPy: nothing of bncli's own."""
    settings, axis = call.settings, call.channel_axis
    x = np.moveaxis(call.x.astype(np.float64), axis, -1)
    g = np.moveaxis(call.grad_output.astype(np.float64), axis, -1)
    axes = tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    mean, var = x.mean(axes), x.var(axes)
    found: dict[str, np.ndarray] = {}
    batch = settings.training or not settings.track_running_stats
    if batch:
        found |= {"mean": mean, "var": var, "invstd": 1 / np.sqrt(var + settings.eps)}
    running = call.running
    if running is not None:
        changes = settings.training
        a = settings.momentum if changes else 0.0
        found |= {
            "running_mean": (1 - a) * running.running_mean + a * mean,
            "running_var": (1 - a) * running.running_var + a * var * count / (count - 1),
            "num_batches_tracked": np.array([running.num_batches_tracked + changes]),
        }
        if not batch:
            mean, var = running.running_mean, running.running_var
    x_hat = (x - mean) / np.sqrt(var + settings.eps)
    weight = call.weight if call.weight is not None else 1.0
    bias = call.bias if call.bias is not None else 0.0
    g_sum, g_x_hat = g.sum(axes), (g * x_hat).sum(axes)
    grad = g - (g_sum + x_hat * g_x_hat) / count if batch else g
    found["output"] = np.moveaxis(x_hat * weight + bias, -1, axis)
    found["grad_input"] = np.moveaxis(grad * weight / np.sqrt(var + settings.eps), -1, axis)
    if settings.affine:
        found |= {"grad_weight": g_x_hat, "grad_bias": g_sum}
    return found


def assert_run(name, call, rounding):
    run = backend(name).run(call)
    expected = expected_quantities(call)
    assert set(run.quantities) == set(expected) <= set(QUANTITIES)
    for quantity, values in expected.items():
        actual = run.quantities[quantity]
        assert actual.shape == values.shape, quantity
        np.testing.assert_allclose(
            actual, values, rtol=rounding, atol=rounding * (1 + np.abs(values).max()),
            err_msg=quantity,
        )  # fmt: skip
    return run


def test_a_backend_says_who_it_is(name):
    chosen = backend(name)
    assert chosen.name == name.value
    run = chosen.run(call_of((6, 3), BatchNormSettings()))
    assert chosen.version()
    assert run.threads >= 1


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(
    "settings", MODES, ids=lambda s: f"{s.training:d}{s.affine:d}{s.track_running_stats:d}"
)
def test_every_kind_in_every_mode(name, shape, settings):
    assert_run(name, call_of(shape, settings), 1e-10)


@pytest.mark.parametrize("dtype", list(ROUNDING))
@pytest.mark.parametrize("settings", MODES[:2] + MODES[4:5] + MODES[7:], ids=repr)
def test_every_dtype(name, dtype, settings):
    run = assert_run(name, call_of((8, 3, 6), settings, dtype), ROUNDING[dtype])
    assert run.arithmetic.dtype == dtype
    for quantity in ("output", "grad_input"):
        values = run.quantities[quantity]
        np.testing.assert_array_equal(decode(encode(values, dtype), dtype), values)


@pytest.mark.parametrize("channel_axis", [0, 1, 2, 3])
def test_the_axes_are_the_users(name, channel_axis):
    shape = (2, 3, 4, 5)
    assert_run(name, call_of(shape, BatchNormSettings(), channel_axis=channel_axis), 1e-10)


@pytest.mark.parametrize("momentum", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("eps", [1e-5, 1e-2])
def test_eps_and_momentum_reach_it(name, momentum, eps):
    call = call_of((6, 3, 4), BatchNormSettings(eps=eps, momentum=momentum))
    assert_run(name, call, 1e-10)


def test_momentum_none_counts_on(name):
    call = call_of((6, 3, 4), BatchNormSettings(momentum=None))
    run = backend(name).run(call)
    assert call.running is not None
    expected = call.running.running_mean * 3 / 4 + call.x.mean((0, 2)) / 4
    np.testing.assert_allclose(run.quantities["running_mean"], expected, rtol=1e-10)
    assert run.quantities["num_batches_tracked"].tolist() == [4]


def test_the_callers_arrays_are_left_alone(name):
    call = call_of((6, 3, 4), BatchNormSettings())
    assert call.running is not None
    assert call.weight is not None
    arrays = (call.x, call.grad_output, call.weight, call.running.running_mean)
    before = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    backend(name).run(call)
    for array, old in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, old)


# ---------------------------------------------------------------------------- the registry

SHARED = {"interface", "arithmetic"}


def forgotten(package, listed: set[str]) -> list[str]:
    """What backends in `package` lack, a sentence each; `listed` are the names in the enum."""
    files = {module.name for module in pkgutil.iter_modules(package.__path__)} - SHARED
    said = [f"{name}.py is a backend that BackendName does not list" for name in files - listed]
    said += [f"BackendName lists {name}, and there is no {name}.py" for name in listed - files]
    for name in sorted(files & listed):
        found = getattr(import_module(f"{package.__name__}.{name}"), "BACKEND", None)
        if found is None:
            said.append(f"{name}.py has no BACKEND")
            continue
        lacking = [member for member in ("name", "version", "run") if not hasattr(found, member)]
        said += [f"BACKEND of {name}.py has no {member}" for member in lacking]
        if getattr(found, "name", name) != name:
            said.append(f"BACKEND of {name}.py calls itself {found.name}")
    return said


def test_no_piece_of_a_backend_is_forgotten():
    assert forgotten(backends, {name.value for name in BackendName}) == []


@pytest.mark.parametrize(
    ("code", "listed", "sentence"),
    [
        ("", False, "numbers.py is a backend that BackendName does not list"),
        (None, True, "BackendName lists numbers, and there is no numbers.py"),
        ("", True, "numbers.py has no BACKEND"),
        ("version = run = print", True, "BACKEND of numbers.py has no name"),
        ("name = 'numbers'; run = print", True, "BACKEND of numbers.py has no version"),
        ("name = 'numbers'; version = print", True, "BACKEND of numbers.py has no run"),
        ("name = 'n'; version = run = print", True, "BACKEND of numbers.py calls itself n"),
        ("name = 'numbers'; version = run = print", True, None),
    ],
)
def test_a_forgotten_piece_is_named(tmp_path, monkeypatch, code, listed, sentence):
    folder = Path(tmp_path, "some_backends")
    folder.mkdir()
    for name in ("__init__", *SHARED):
        (folder / f"{name}.py").touch()
    if code is not None:
        text = f"class BACKEND: {code}" if code else "pass"
        (folder / "numbers.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("some_backends", "some_backends.numbers"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    package = import_module("some_backends")
    found = forgotten(package, {"numbers"} if listed else set())
    assert found == ([sentence] if sentence else [])


def test_what_torch_may_is_what_a_backend_may():
    torch_backend = installed(BackendName.TORCH)
    for kind in (Backend, Averages, ChoosesPath, GivesSteps, IsRepeated, RunsNorms, StepsModule):
        assert isinstance(torch_backend, kind)


# ---------------------------------------------------------------------------- norms


def norms_of(shape, channel_axis=1, *, dtype="float64", groups=3, normalized=None, eps=None):
    normalized = len(shape) - 1 if normalized is None else normalized
    rms_eps = 2.0 ** (-52 if dtype == "float64" else -23)
    found = describe(
        shape, channel_axis, groups=groups, normalized=normalized, eps=eps, rms_eps=rms_eps
    )
    missing = () if hasattr(torch.nn, "RMSNorm") else (RMS,)  # it came with PyTorch 2.4
    return [norm for norm in found if not norm.refused and norm.name not in missing]


def expected_norm(norm, x) -> dict[str, np.ndarray]:
    """By the formulas, in NumPy: nothing of bncli's own."""
    x = x.astype(np.float64)
    axes = norm.axes
    if norm.groups is not None:
        x = np.moveaxis(x, norm.channel_axis, 1)
        x = x.reshape(x.shape[0], norm.groups, -1)
        axes = (2,)
    mean = x.mean(axes, keepdims=True) * (norm.name != RMS)
    invstd = 1 / np.sqrt(((x - mean) ** 2).mean(axes, keepdims=True) + norm.eps)
    output = (x - mean) * invstd
    if norm.groups is not None:
        order = [norm.shape[0], norm.shape[norm.channel_axis]]
        order += [n for axis, n in enumerate(norm.shape) if axis not in (0, norm.channel_axis)]
        output = np.moveaxis(output.reshape(order), 1, norm.channel_axis)
    return {"mean": mean, "invstd": invstd, "output": output}


@pytest.mark.parametrize("dtype", list(ROUNDING))
@pytest.mark.parametrize("eps", [None, 1e-2])
@pytest.mark.parametrize(
    ("shape", "channel_axis", "normalized"),
    [
        ((4, 6), 1, 1),
        ((4, 6, 5), 1, 2),
        ((4, 6, 5), 1, 1),
        ((4, 5, 6), 2, 1),
        ((4, 5, 6), 2, 2),
        ((3, 6, 4, 5), 1, 3),
        ((3, 4, 6, 5), 2, 2),
        ((3, 4, 5, 6), -1, 1),
        ((2, 6, 3, 2, 4), 1, 4),
    ],
)
def test_every_norm(name, dtype, eps, shape, channel_axis, normalized):
    rng = np.random.default_rng(0)
    x = decode(encode(rng.normal(1, 2, shape), dtype), dtype)
    axis = channel_axis % len(shape)
    for norm in norms_of(shape, axis, dtype=dtype, normalized=normalized, eps=eps):
        run = backend(name).run_norm(NormCall(norm, x, dtype))
        wanted = {"output", "mean", "invstd"}
        if norm.name == RMS:
            fused = hasattr(torch.ops.aten, "_fused_rms_norm")  # before, it gave no statistic
            wanted -= {"mean"} if fused else {"mean", "invstd"}
        assert set(run.quantities) == wanted <= set(NORM_QUANTITIES)
        expected = expected_norm(norm, x)
        assert run.quantities["output"].shape == shape
        assert run.affine_shape == (() if norm.name == INSTANCE else norm.affine_shape)
        for quantity, values in run.quantities.items():
            if quantity != "output":
                assert values.shape == norm.kept
            np.testing.assert_allclose(
                values.reshape(expected[quantity].shape), expected[quantity],
                rtol=ROUNDING[dtype], atol=ROUNDING[dtype] * 3, err_msg=f"{norm.name} {quantity}",
            )  # fmt: skip


def test_only_batch_norm_feels_the_other_samples(name):
    """The backend's own outputs, with and without the last sample."""
    x = np.random.default_rng(0).normal(size=(4, 6, 5))
    for norm in norms_of(x.shape):
        whole = backend(name).run_norm(NormCall(norm, x, "float64")).quantities["output"]
        (fewer,) = [item for item in norms_of((3, 6, 5)) if item.name == norm.name]
        rest = backend(name).run_norm(NormCall(fewer, x[:-1], "float64")).quantities["output"]
        change = np.abs(whole[:-1] - rest).max()
        assert (change > 0.1) == (norm.name == BATCH)
        assert norm.name == BATCH or change == 0


def test_a_norm_leaves_the_callers_array_alone(name):
    x = np.random.default_rng(0).normal(size=(4, 6, 5))
    before = x.copy()
    x.flags.writeable = False
    for norm in norms_of(x.shape):
        backend(name).run_norm(NormCall(norm, x, "float64"))
    np.testing.assert_array_equal(x, before)


def test_a_norm_of_a_missing_library_is_one_sentence(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name.value, None)
    (norm,) = [norm for norm in norms_of((4, 6)) if norm.name == LAYER]
    with pytest.raises(MissingBackendError, match="python -m pip install"):
        backend(name).run_norm(NormCall(norm, np.ones((4, 6)), "float64"))


# ---------------------------------------------------------------------------- missing


def expected_steps(call: BatchNormCall) -> dict[str, np.ndarray]:
    """Every step by its formula, in NumPy."""
    ends = expected_quantities(call)
    settings, axis = call.settings, call.channel_axis
    x = np.moveaxis(call.x.astype(np.float64), axis, -1)
    g = np.moveaxis(call.grad_output.astype(np.float64), axis, -1)
    axes = tuple(range(x.ndim - 1))
    ones, zeros = np.ones(x.shape[-1]), np.zeros(x.shape[-1])
    weight = ones if call.weight is None else call.weight
    bias = zeros if call.bias is None else call.bias
    batch = settings.normalizes_with_batch
    found = {}
    if batch or call.running is None:
        mean, var = x.mean(axes), x.var(axes)
        found["unbiased_var"] = x.var(axes, ddof=1)
    else:
        mean, var = call.running.running_mean, call.running.running_var
    shifted = var + settings.eps
    invstd = 1 / np.sqrt(shifted)
    x_hat = (x - mean) * invstd
    by_element = {
        "x": x, "deviation": x - mean, "squared": (x - mean) ** 2, "x_hat": x_hat,
        "scaled": x_hat * weight, "g": g, "grad_x_hat": g * weight,
    }  # fmt: skip
    found |= {
        "mean": mean, "var": var, "var_plus_eps": shifted, "sqrt": np.sqrt(shifted),
        "invstd": invstd, "alpha": weight * invstd, "beta": bias - mean * weight * invstd,
        "sum_g": g.sum(axes), "sum_g_x_hat": (g * x_hat).sum(axes),
    }  # fmt: skip
    found |= {name: np.moveaxis(values, -1, axis) for name, values in by_element.items()}
    found |= {"output": ends["output"], "grad_input": ends["grad_input"]}
    if settings.affine:
        found |= {"weight": weight, "bias": bias}
    if batch:
        found |= {
            "var_sum": ((x - mean) ** 2).sum(axes),
            "grad_var": -0.5 * weight * invstd**3 * (g * (x - mean)).sum(axes),
            "grad_mean": -weight * invstd * g.sum(axes),
        }
    return found


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(
    "settings", MODES, ids=lambda s: f"{s.training:d}{s.affine:d}{s.track_running_stats:d}"
)
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_the_steps_between_input_and_output(name, shape, settings, dtype):
    call = call_of(shape, settings, dtype, channel_axis=len(shape) - 1)
    before = call.x.copy()
    found = backend(name).steps(call)
    expected = expected_steps(call)
    assert set(found) == set(expected)
    rounding = 1e-10 if dtype == "float64" else 1e-4  # the steps of half precision are float32's
    for quantity, values in expected.items():
        np.testing.assert_allclose(
            found[quantity], values, rtol=rounding, atol=rounding * (1 + np.abs(values).max()),
            err_msg=quantity,
        )  # fmt: skip
    np.testing.assert_array_equal(call.x, before)


def test_a_missing_library_is_one_sentence(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name.value, None)
    with pytest.raises(MissingBackendError) as caught:
        backend(name).run(call_of((6, 3), BatchNormSettings()))
    assert "is not installed here, and the comparison needs it: " in str(caught.value)
    assert "python -m pip install" in str(caught.value)
    with pytest.raises(MissingBackendError):
        backend(name).steps(call_of((6, 3), BatchNormSettings()))
    with pytest.raises(MissingBackendError):
        installed(name)


def test_against_a_missing_library_is_exit_2(run, save, name, monkeypatch):
    x = save("x.npy", np.random.default_rng(0).normal(size=(6, 3)))
    monkeypatch.setitem(sys.modules, name.value, None)
    code, stdout, stderr = run("compute", x, "--against", name.value)
    assert (code, stdout) == (2, "")
    assert stderr.count("\n") == 1
    assert "python -m pip install" in stderr
    assert run("compute", x).code == 0


def test_every_backend_is_named_in_the_flag(run, save, name):
    x = save("x.npy", np.random.default_rng(0).normal(size=(6, 3)))
    result = run("compute", x, "--against", name.value, "-f", "json")
    assert result.code == 0
    assert result.report["facts"]["backend"] == name.value


# ---------------------------------------------------------------------------- step by step


def stepping(dtype="float64", momentum=0.25, freeze_after=None, **more) -> SteppingCall:
    given = {
        "num_features": 3,
        "ndim": 3,
        "dtype": dtype,
        "momentum": momentum,
        "running": RunningStats(np.zeros(3), np.ones(3), 0),
        "freeze_after": freeze_after,
        "threads": 1,
    }
    return SteppingCall(**(given | more))


def some_batches(number=4, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(1, 2, (6, 3, 5)) for _ in range(number)]


def assert_buffers(found, mean, var, tracked, rounding=1e-10):
    np.testing.assert_allclose(found.running_mean, mean, rtol=rounding, atol=rounding)
    np.testing.assert_allclose(found.running_var, var, rtol=rounding, atol=rounding)
    assert found.num_batches_tracked == tracked


@pytest.mark.parametrize("dtype", list(ROUNDING))
def test_every_step_of_a_module(name, dtype):
    batches = [decode(encode(x, dtype), dtype) for x in some_batches()]
    found = list(backend(name).step(stepping(dtype), batches))
    mean, var = np.zeros(3), np.ones(3)
    for step, (x, buffers) in enumerate(zip(batches, found, strict=True), 1):
        wide = x.astype(np.float64)
        mean = 0.75 * mean + 0.25 * wide.mean((0, 2))
        var = 0.75 * var + 0.25 * wide.var((0, 2), ddof=1)
        assert_buffers(buffers, mean, var, step, ROUNDING[dtype])


def test_steps_begin_where_they_are_told_and_freeze(name):
    start = RunningStats(np.full(3, 5.0), np.full(3, 2.0), 7)
    call = stepping(running=start, freeze_after=1)
    first, *rest = backend(name).step(call, some_batches())
    x = some_batches()[0]
    mean, var = 0.75 * 5 + 0.25 * x.mean((0, 2)), 0.75 * 2 + 0.25 * x.var((0, 2), ddof=1)
    assert_buffers(first, mean, var, 8)
    for later in rest:
        assert_buffers(later, first.running_mean, first.running_var, 8, 0)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_threads_asked_for_share_the_batches(name, threads):
    """Seen from the batches, which are made while the library steps; its own number is kept."""
    seen = []
    before = torch.get_num_threads()

    def batches():
        for x in some_batches():
            seen.append(torch.get_num_threads())
            yield x

    list(backend(name).step(stepping(threads=threads), batches()))
    backend(name).average(stepping(momentum=None, threads=threads), batches())
    assert seen == [threads] * 8
    assert torch.get_num_threads() == before


def test_threads_share_rows_and_so_change_the_last_bits(name):
    """float32 rows are summed in shares, one a thread: as their own sums in float32 give."""
    x = np.random.default_rng(0).normal(100, 1, (4096, 3)).astype(np.float32)
    for threads in (1, 2):
        call = stepping("float32", momentum=1.0, ndim=2, threads=threads)
        (found,) = backend(name).step(call, [x])
        total = np.zeros(3)
        for share in np.split(x, threads):
            sums = np.zeros(3, np.float32)
            for row in share:
                sums += row
            total += sums
        np.testing.assert_array_equal(found.running_mean, (total / 4096).astype(np.float32))


def test_a_refused_batch_is_counted_alone(name):
    one = some_batches()[0][:1, :, :1]
    before, after = backend(name).step(stepping(), [some_batches()[0], one])
    assert_buffers(after, before.running_mean, before.running_var, 2, 0)


def test_another_error_is_not_hidden(name):
    with pytest.raises(Exception, match="4"):
        list(backend(name).step(stepping(), [np.zeros((2, 4, 5))]))


def test_the_library_s_own_average(name):
    batches = some_batches()
    found = backend(name).average(stepping(momentum=None), batches)
    mean = np.mean([x.mean((0, 2)) for x in batches], 0)
    var = np.mean([x.var((0, 2), ddof=1) for x in batches], 0)
    assert_buffers(found, mean, var, 4)


def test_it_says_whether_it_is_repeated(name):
    assert isinstance(backend(name).repeats(), bool)
    assert backend(name).version()


def test_a_missing_library_is_one_sentence_step_by_step_too(name, run, save, monkeypatch):
    x = save("x.npy", np.random.default_rng(0).normal(size=(6, 3)))
    monkeypatch.setitem(sys.modules, name.value, None)
    code, stdout, stderr = run("simulate-ema", x, "--against", name.value)
    assert (code, stdout) == (2, "")
    assert "is not installed here, and the comparison needs it: " in stderr
