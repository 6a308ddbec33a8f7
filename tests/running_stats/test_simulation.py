"""The recursion over many steps: against closed forms in fractions, and against PyTorch."""

from __future__ import annotations

import contextlib
import platform
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bncli.model import RunningStats
from bncli.pytorch_cpu import float32, half
from bncli.running_stats.batch_table import BatchTable
from bncli.running_stats.frameworks import CONVENTIONS, convention
from bncli.running_stats.simulation import Course, Walk, simulate

PYTORCH = convention("pytorch")
every_convention = pytest.mark.parametrize("row", CONVENTIONS, ids=lambda row: row.name)
knows_the_lanes = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="other vector lanes"
)


def table_of(mean, var, count=10) -> BatchTable:
    """One channel; the batches have these means and biased variances."""
    counts = np.broadcast_to(np.asarray(count, np.int64), (len(mean),))
    return BatchTable(
        counts.copy(),
        np.asarray(mean, np.float64)[:, np.newaxis],
        np.asarray(var, np.float64)[:, np.newaxis],
    )


def course(number, momentum, epochs=1, **more) -> Course:
    return Course(
        lambda: (np.arange(number) for _ in range(epochs)), number * epochs, momentum, **more
    )


def walked(table, row, given_course):
    """(steps, 2, channels) buffers, the initial weights, and the walk."""
    walk = Walk(table, row, given_course)
    pieces = list(walk.pieces())
    buffers = np.concatenate(
        [np.stack((piece.running_mean, piece.running_var), 1) for piece in pieces]
    )
    return buffers, np.concatenate([piece.initial_weight for piece in pieces]), walk


def exactly(row, momentum, batches, start, count):
    """The buffers after every batch, (mean, var) as fractions, from the definition."""
    m = Fraction(momentum)
    old = m if row.weighs == "old" else 1 - m
    new = 1 - old
    bessel = {
        "biased": Fraction(1),
        "unbiased": Fraction(count, count - 1),
        "keras2": count / (count - 1 - Fraction(float(row.eps))),
    }[row.variance]
    mean, var = (Fraction(value) for value in start)
    found = []
    for t, (batch_mean, batch_var) in enumerate(batches, 1):
        a, q = (Fraction(1), Fraction(0)) if row.debias == "first" and t == 1 else (new, old)
        mean = q * mean + a * Fraction(batch_mean)
        var = q * var + a * Fraction(batch_var) * bessel
        divisor = 1 - old**t if row.debias == "divided" else 1
        found.append((mean / divisor, var / divisor))
    return found


# ---------------------------------------------------------------------------- closed forms


numbers = st.floats(-1e3, 1e3, allow_subnormal=False)
positive = st.floats(0, 1e3, allow_subnormal=False)


@every_convention
@settings(max_examples=8, deadline=None)
@given(
    st.sampled_from([0.5, 0.75, 0.875, 0.0625]),
    st.lists(st.tuples(numbers, positive), min_size=1, max_size=90),
)
def test_every_convention_by_its_definition(row, momentum, batches):
    table = table_of([mean for mean, _ in batches], [var for _, var in batches])
    buffers, _, walk = walked(table, row, course(len(batches), momentum))
    start = row.initial_mean, row.initial_var
    expected = exactly(row, momentum, batches, start, 10)
    for (mean, var), (exact_mean, exact_var) in zip(buffers[:, :, 0], expected, strict=True):
        assert mean == pytest.approx(float(exact_mean), rel=1e-12, abs=1e-10)
        assert var == pytest.approx(float(exact_var), rel=1e-12, abs=1e-10)
    assert walk.updates == walk.tracked == len(batches)


@every_convention
@pytest.mark.parametrize("tracked", [0, 3])
def test_squared_weights_are_those_of_unit_batches(monkeypatch, row, tracked):
    """A batch's weight is what the buffers hold where its mean is 1 and all others are 0."""
    monkeypatch.setattr("bncli.running_stats.simulation.AHEAD", 1)
    number = 70  # in two stretches
    begin = RunningStats(np.zeros(number), np.ones(number), tracked) if tracked else None
    table = BatchTable(np.full(number, 4), np.eye(number), np.ones((number, number)))
    for new in (0.75, 0.0078125):
        _, _, walk = walked(table, row, course(number, row.momentum_of(new), start=begin))
        weights = walk.final().running_mean
        assert walk.squared_weights() == pytest.approx((weights**2).sum(), rel=1e-12)


@pytest.mark.parametrize("tracked", [0, 7])
@pytest.mark.parametrize("lone", [None, 5])
def test_squared_weights_of_the_cumulative_average(tracked, lone):
    """With a counter that began before, and with a batch that is counted and refused."""
    number = 40
    count = np.full(number, 4)
    if lone is not None:
        count[lone] = 1
    begin = RunningStats(np.zeros(number), np.ones(number), tracked)
    table = BatchTable(count, np.eye(number), np.ones((number, number)))
    _, _, walk = walked(table, PYTORCH, course(number, None, start=begin))
    weights = walk.final().running_mean
    assert walk.squared_weights() == pytest.approx((weights**2).sum(), rel=1e-12)
    if lone is None:
        assert walk.squared_weights() == pytest.approx(number / (number + tracked) ** 2, rel=1e-12)


def test_weights_that_grow_beyond_all_bounds_are_no_bug():
    table = table_of([0.0] * 900, [1.0] * 900)
    for name in ("pytorch", "haiku"):
        row = convention(name)
        _, _, walk = walked(table, row, course(900, row.momentum_of(-2.0)))
        assert not walk.squared_weights() < 1e300


@pytest.mark.parametrize("momentum", [0.1, 0.01, 0.9, 1.0, 0.0, 1.5, -0.25])
@pytest.mark.parametrize("number", [1, 63, 64, 65, 200])
def test_the_closed_form_of_the_recursion(momentum, number):
    """R_N = q**N R_0 + a * sum of q**(N - i) x_i, in fractions."""
    rng = np.random.default_rng(number)
    mean, var = rng.normal(5, 2, number), rng.uniform(0.5, 2, number)
    buffers, weights, _ = walked(table_of(mean, var), PYTORCH, course(number, momentum))
    a = Fraction(momentum)
    q = 1 - a
    n = number
    r = sum((a * q ** (n - i) * Fraction(x) for i, x in enumerate(mean.tolist(), 1)), Fraction(0))
    v = sum((a * q ** (n - i) * Fraction(x) for i, x in enumerate(var.tolist(), 1)), Fraction(0))
    assert buffers[-1, 0, 0] == pytest.approx(float(r), rel=1e-11)
    assert buffers[-1, 1, 0] == pytest.approx(float(q**n + v * Fraction(10, 9)), rel=1e-11)
    assert weights[-1] == pytest.approx(float(q**n), rel=1e-11, abs=1e-300)


def test_the_cumulative_average_is_the_plain_mean():
    rng = np.random.default_rng(0)
    mean, var = rng.normal(5, 2, 300), rng.uniform(0.5, 2, 300)
    buffers, weights, _ = walked(table_of(mean, var), PYTORCH, course(300, None))
    for n in (1, 2, 77, 300):
        exact = sum(map(Fraction, mean[:n].tolist())) / n
        assert buffers[n - 1, 0, 0] == pytest.approx(float(exact), rel=1e-12)
        exact = sum(map(Fraction, var[:n].tolist())) / n * Fraction(10, 9)
        assert buffers[n - 1, 1, 0] == pytest.approx(float(exact), rel=1e-12)
    assert (weights == 0).all()


def test_the_cumulative_average_goes_on_from_its_counter():
    start = RunningStats(np.array([2.0]), np.array([3.0]), 4)
    table = table_of([7.0, 9.0], [0.9, 0.9])
    buffers, weights, walk = walked(table, PYTORCH, course(2, None, start=start))
    assert buffers[-1, 0, 0] == pytest.approx((4 * 2.0 + 7.0 + 9.0) / 6, rel=1e-14)
    assert buffers[-1, 1, 0] == pytest.approx((4 * 3.0 + 1.0 + 1.0) / 6, rel=1e-14)
    assert weights.tolist() == pytest.approx([4 / 5, 4 / 6])
    assert walk.final().num_batches_tracked == 6


def test_a_debiased_average_goes_on_from_its_counter():
    """As though the batches before had been part of the same run."""
    rng = np.random.default_rng(0)
    mean, var = rng.normal(size=20), rng.uniform(1, 2, 20)
    for name in ("haiku", "caffe"):
        row = convention(name)
        whole, _, _ = walked(table_of(mean, var), row, course(20, 0.9))
        first, _, walk = walked(table_of(mean[:8], var[:8]), row, course(8, 0.9))
        start = walk.final()
        rest, weights, _ = walked(table_of(mean[8:], var[8:]), row, course(12, 0.9, start=start))
        np.testing.assert_allclose(np.concatenate([first, rest]), whole, rtol=1e-12)
        expected = [0.9**k * (1 - 0.9**8) / (1 - 0.9 ** (8 + k)) for k in range(1, 13)]
        np.testing.assert_allclose(weights, expected, rtol=1e-12)


def test_weights_of_the_initial_value():
    table = table_of([1.0] * 5, [1.0] * 5)
    expected = {
        "pytorch": [0.75**k for k in range(1, 6)],
        "haiku": [0.0] * 5,
        "caffe": [0.0] * 5,
        "equinox": [0.0] * 5,
        "equinox-batch": [0.75**k / (1 - 0.75**k) for k in range(1, 6)],
    }
    for name, weights in expected.items():
        row = convention(name)
        _, found, _ = walked(table, row, course(5, row.momentum_of(0.25)))
        np.testing.assert_allclose(found, weights, rtol=1e-14, err_msg=name)


def test_equinox_reads_far_too_large_at_first():
    """0.99 of the initial variance 1, divided by 0.01, and the batch's own."""
    buffers, _, _ = walked(table_of([0.0], [2.5]), convention("equinox-batch"), course(1, 0.99))
    assert buffers[0, 1, 0] == pytest.approx(99 + 2.5, rel=1e-12)


# ---------------------------------------------------------------------------- how it is done


def test_memory_and_stretches_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    table = BatchTable(np.full(7, 12), rng.normal(size=(7, 3)), rng.uniform(1, 2, (7, 3)))
    orders = [rng.permutation(7) for _ in range(40)]
    wanted = np.array([1, 2, 100, 101, 279, 280])

    def run():
        return simulate(table, PYTORCH, Course(lambda: iter(orders), 280, 0.05), wanted, [0, 2])

    whole = run()
    monkeypatch.setattr("bncli.running_stats.simulation.AHEAD", 1)
    short = run()
    assert whole.steps.tolist() == wanted.tolist()
    assert whole.running_mean.shape == (6, 2)
    assert whole.batches.tolist() == np.concatenate(orders)[wanted - 1].tolist()
    for name in ("running_mean", "running_var", "initial_weight"):
        np.testing.assert_allclose(getattr(whole, name), getattr(short, name), rtol=1e-13)
    np.testing.assert_allclose(whole.final.running_var, short.final.running_var, rtol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_million_steps_take_little_memory(dtype):
    import tracemalloc

    rng = np.random.default_rng(0)
    mean, var = rng.normal(size=(50, 8)), rng.uniform(1, 2, (50, 8))
    held = (None, None)
    if dtype == "float32":
        held = (mean.astype(np.float32), (var * 10).astype(np.float32))
    table = BatchTable(np.full(50, 10), mean, var, dtype, *held)
    number = 1_000_000 if dtype == "float64" else 50_000
    tracemalloc.start()
    simulate(table, PYTORCH, course(50, 0.1, number // 50), np.array([1, number]), [0])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16e6


def test_what_is_not_finite_stays_and_spoils_no_other_channel():
    mean = np.zeros((200, 3))
    var = np.ones((200, 3))
    mean[150, 1], var[150, 1] = np.nan, np.nan
    var[180, 2] = np.inf
    for dtype, held in (
        ("float64", (None, None)),
        ("float32", (mean.astype(np.float32), (var * 10).astype(np.float32))),
    ):
        table = BatchTable(np.full(200, 10), mean, var, dtype, *held)
        walk = Walk(table, PYTORCH, course(200, 0.1))
        pieces = list(walk.pieces())
        running = np.concatenate([piece.running_var for piece in pieces])
        assert np.isfinite(running[:150]).all()
        assert np.isfinite(running[:, 0]).all()
        assert np.isnan(running[150:, 1]).all()
        assert np.isinf(running[180:, 2]).all()
        assert walk.impossible == 151


def test_the_step_at_which_the_variance_is_negative():
    """momentum 1.5: -0.5 * 1 + 1.5 * small is below 0 at once; a proper one never is."""
    for momentum, expected in ((1.5, 1), (0.9, None)):
        walk = Walk(table_of([0.0] * 5, [0.1] * 5), PYTORCH, course(5, momentum))
        list(walk.pieces(np.zeros(0, np.int64)))
        assert walk.impossible == expected


# ---------------------------------------------------------------------------- one value, freezing


ONE_VALUE = {
    "pytorch": ("left", True),
    "mlx": ("left", True),
    "paddle": ("left", False),
    "paddle-cudnn": ("left", False),
    "keras3": ("0", True),
    "caffe": ("0", True),
    "tinygrad": ("nan", True),
    "darknet": ("nan", True),
}


@pytest.mark.parametrize("name", ONE_VALUE)
def test_a_batch_with_one_value(name):
    row = convention(name)
    does, counted = ONE_VALUE[name]
    table = table_of([4.0, 6.0], [2.0, 0.0], [10, 1])
    buffers, _, walk = walked(table, row, course(2, row.momentum_of(0.25)))
    assert walk.tracked == 1 + counted
    if does == "left":
        np.testing.assert_array_equal(buffers[1], buffers[0])
        assert walk.updates == 1
    elif does == "nan":
        assert np.isnan(buffers[1, 1, 0])
    else:
        divisor = [1 - 0.75**t if row.debias == "divided" else 1.0 for t in (1, 2)]
        expected = 0.75 * buffers[0, 1, 0] * divisor[0] / divisor[1]
        assert buffers[1, 1, 0] == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("freeze", [0, 1, 3, 5, 9])
def test_frozen_buffers_and_their_counter_stay(freeze):
    mean, var = np.arange(5.0), np.ones(5)
    buffers, weights, walk = walked(
        table_of(mean, var), PYTORCH, course(5, 0.1, freeze_after=freeze)
    )
    plain, plain_weights, _ = walked(table_of(mean, var), PYTORCH, course(5, 0.1))
    kept = min(freeze, 5)
    np.testing.assert_array_equal(buffers[:kept], plain[:kept])
    last = plain[kept - 1] if kept else np.array([[0.0], [1.0]])
    assert (buffers[kept:] == last).all()
    assert (weights[kept:] == (plain_weights[kept - 1] if kept else 1.0)).all()
    assert walk.tracked == walk.updates == kept


# ---------------------------------------------------------------------------- PyTorch


def random_case(seed):
    """Batches and a module's settings, drawn from `seed`."""
    rng = np.random.default_rng(seed)
    dtype = str(rng.choice(["float64", "float32", "float32", "float16", "bfloat16"]))
    rank = int(rng.integers(2, 6))
    channels = int(rng.integers(1, 20))
    spatial = tuple(int(rng.choice([1, 2, 3, 5])) for _ in range(rank - 2))
    number = int(rng.integers(1, 7))
    torch.manual_seed(seed)
    batches = []
    for _ in range(number):
        n = int(rng.integers(1, 9))
        x = torch.randn(n, channels, *spatial, dtype=torch.float64)
        x = (x * float(rng.choice([0.1, 1, 30])) + float(rng.choice([0, 1, 100]))).to(
            getattr(torch, dtype)
        )
        layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(rank)
        if layout is not None and rng.random() < 0.4:
            x = x.contiguous(memory_format=layout)
        batches.append(x)
    steps = int(rng.integers(1, 20))
    return {
        "dtype": dtype,
        "batches": batches,
        "order": rng.integers(0, number, steps),
        "momentum": [0.1, 0.01, None, 1.0, 0.0, 1.3, 0.73][int(rng.integers(7))],
        "freeze": None if rng.random() < 0.7 else int(rng.integers(0, steps + 1)),
        "tracked": int(rng.integers(0, 5)),
        "fresh": bool(rng.random() < 0.5),
    }


def own_table(batches, dtype, threads) -> BatchTable:
    counts = np.array([x.numel() // x.shape[1] for x in batches])
    if dtype == "float64":
        axes = [(0, *range(2, x.ndim)) for x in batches]
        mean = np.stack([x.numpy().mean(a) for x, a in zip(batches, axes, strict=True)])
        var = np.stack([x.numpy().var(a) for x, a in zip(batches, axes, strict=True)])
        return BatchTable(counts, mean, var)
    held = []
    for x in batches:
        wide = x.float().numpy()
        rows = float32.sums_by_rows(wide)
        held.append(
            float32.batch_statistics(wide, rows=rows, threads=threads)
            if dtype == "float32"
            else half.batch_statistics(wide, dtype=dtype, rows=rows, threads=threads)
        )
    mean = np.stack([each.mean for each in held])
    var_sum = np.stack([each.var_sum for each in held])
    return BatchTable(
        counts, mean.astype(float), var_sum / counts[:, np.newaxis], dtype, mean, var_sum
    )


@pytest.fixture
def torch_threads(seed):
    """How many threads PyTorch has: one, and now and then two."""
    before = torch.get_num_threads()
    torch.set_num_threads(2 if seed % 10 == 0 else 1)
    yield torch.get_num_threads()
    torch.set_num_threads(before)


@knows_the_lanes
@pytest.mark.parametrize("seed", range(60))
def test_every_step_of_the_module(seed, torch_threads):
    """Bit for bit but for float64, over the settings that reach the buffers."""
    case = random_case(seed)
    dtype, batches = case["dtype"], case["batches"]
    kind = getattr(torch.nn, f"BatchNorm{max(batches[0].ndim - 2, 1)}d")
    channels = batches[0].shape[1]
    module = kind(channels, momentum=case["momentum"], dtype=batches[0].dtype)
    start = None
    if not case["fresh"]:
        module.running_mean.normal_()
        module.running_var.uniform_(0.5, 2)
        module.num_batches_tracked.fill_(case["tracked"])
        start = RunningStats(
            module.running_mean.double().numpy().copy(),
            module.running_var.double().numpy().copy(),
            case["tracked"],
        )
    table = own_table(batches, dtype, torch_threads)
    order = case["order"]
    found, _, walk = walked(
        table,
        PYTORCH,
        Course(lambda: iter([order]), len(order), case["momentum"], start, case["freeze"]),
    )
    for step, batch in enumerate(order.tolist()):
        if case["freeze"] is not None and step >= case["freeze"]:
            module.eval()
        with torch.no_grad(), contextlib.suppress(ValueError):  # one value a channel is refused
            module(batches[batch])
        expected = np.stack((module.running_mean.double(), module.running_var.double()))
        if dtype == "float64":
            np.testing.assert_allclose(found[step], expected, rtol=1e-11, atol=1e-11)
        else:
            np.testing.assert_array_equal(found[step], expected, err_msg=f"{case} step {step}")
    assert walk.tracked == int(module.num_batches_tracked)


@pytest.mark.parametrize(
    ("momentum", "floor", "steps"),
    [
        (0.1, 4, 964), (0.3, 1, 288), (0.03, 16, None), (0.01, 50, None), (0.001, 500, None),
        (0.5, 0, 150),
    ],
)  # fmt: skip
def test_a_dead_channel_stops_at_the_floor_of_float32(momentum, floor, steps):
    """In units of the smallest float32; float64 goes on."""
    zero = np.zeros((1, 1), np.float32)
    table = BatchTable(np.array([8]), zero.astype(float), zero.astype(float), "float32", zero, zero)
    number = steps or 200_000
    found = simulate(
        table, PYTORCH, course(1, momentum, number + 500), np.array([number - 1, number]), [0]
    )
    assert found.final.running_var[0] == floor * 2.0**-149
    if momentum == 0.1:
        assert found.final.running_var[0] == 5.605193857299268e-45
    if steps:
        before, after = found.running_var[:, 0]
        assert before > after == floor * 2.0**-149
    exact = simulate(
        table_of([0.0], [0.0], 8), PYTORCH, course(1, 0.1, 1000), np.array([1000]), [0]
    )
    assert exact.final.running_var[0] == pytest.approx(0.9**1000, rel=1e-9)


@pytest.mark.parametrize(
    ("dtype", "momentum", "steps", "mean", "var"),
    [("bfloat16", 0.001, 3000, 0.5, 1.0), ("float16", 0.1, 1000, 0.998, 1.996)],
)
def test_half_precision_stalls(dtype, momentum, steps, mean, var):
    """Identical batches with mean 1 and unbiased variance 2: measured in PyTorch."""
    one = np.ones((1, 1), np.float32)
    var_sum = one * 18
    table = BatchTable(np.array([10]), one.astype(float), one * 1.8, dtype, one, var_sum)
    found = simulate(table, PYTORCH, course(1, momentum, steps), np.array([steps]), [0])
    assert found.final.running_mean[0] == pytest.approx(mean, abs=1e-3)
    assert found.final.running_var[0] == pytest.approx(var, abs=2e-3)


@every_convention
def test_squared_weights_at_a_step_are_those_of_the_course_that_ends_there(row, monkeypatch):
    monkeypatch.setattr("bncli.running_stats.simulation.AHEAD", 1)
    count = np.array([4, 1, 4])  # one batch has one value, which some conventions leave out
    table = table_of([0.0, 1.0, 2.0], [1.0, 0.0, 2.0], count)
    steps = np.array([1, 2, 5, 6, 7, 12])

    def ending(last, momentum, freeze):
        def order():
            yield np.arange(last) % 3

        return Course(order, last, momentum, freeze_after=min(freeze, last))

    momenta = (row.momentum_of(0.25), *(() if row.debias == "divided" else (None,)))
    for momentum in momenta:
        for freeze in (12, 6, 0):
            found = Walk(table, row, ending(12, momentum, freeze)).squares(steps)
            walks = [walked(table, row, ending(int(last), momentum, freeze))[2] for last in steps]
            ends = [walk.squared_weights() for walk in walks]
            np.testing.assert_allclose(found, ends, rtol=1e-12)
