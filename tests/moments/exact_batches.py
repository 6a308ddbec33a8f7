"""An oracle for sums over batches: exact arithmetic on float64 values."""

from fractions import Fraction

import numpy as np

from .exact import rounded

TOLERANCE = 1e-12
COUNTS = ("min", "max", "at_min", "at_max", "at_zero", "nan", "posinf", "neginf")
SUMS = (
    "within",
    "between",
    "sample_squares",
    "sample_between",
    "batch_mean_squares",
    "batch_var",
    "batch_var_squares",
)


def rows(x, channel):
    """The values of a channel, (samples, values)."""
    return np.asarray(x)[:, channel].reshape(len(x), -1).astype(np.float64)


def scatter(numbers, weights=None):
    """The weighted mean of Fractions, and their squared deviations from it added up."""
    weights = weights or [1] * len(numbers)
    mean = sum(w * v for v, w in zip(numbers, weights, strict=True)) / sum(weights)
    return mean, sum(w * (v - mean) ** 2 for v, w in zip(numbers, weights, strict=True))


def exact_sums(batches, channel):
    """What `InputSums` says of a channel, as Fractions; both means whole."""
    means, counts, within, by_samples, variances = [], [], [], [], []
    for x in batches:
        samples = [[Fraction(v) for v in row] for row in rows(x, channel).tolist()]
        values = [v for row in samples for v in row]
        mean, squares = scatter(values)
        means.append(mean)
        counts.append(len(values))
        within.append(squares)
        by_samples.append(scatter([sum(row) / len(row) for row in samples])[1])
        if len(values) > 1:
            variances.append(squares / (len(values) - 1))
    found = {"within": sum(within), "sample_squares": sum(by_samples)}
    found["mean"], found["between"] = scatter(means, counts)
    found["mean_of_samples"], found["sample_between"] = scatter(means, [len(x) for x in batches])
    found["mean_of_batches"], found["batch_mean_squares"] = scatter(means)
    if variances:
        found["batch_var"], found["batch_var_squares"] = scatter(variances)
    return found


def two(sums, name, channel):
    """A mean as the two numbers that it is kept in have it."""
    return Fraction(float(sums.shift[channel])) + Fraction(float(getattr(sums, name)[channel]))


def near(sums, name, channel, wanted, room):
    """Whether a sum is within `room`, or the last places of float64; infinite if it has to be."""
    got = float(getattr(sums, name)[channel])
    if rounded(wanted) == np.inf:
        return got == np.inf
    return abs(Fraction(got) - wanted) <= room + Fraction(1e-322)


def check(sums, batches):
    """Assert that `sums` are those of the finite `batches`, extremes and counts included."""
    check_moments(sums, batches)
    for c in range(sums.num_features):
        values = np.concatenate([rows(x, c).ravel() for x in batches])
        assert sums.min[c] == values.min()
        assert sums.max[c] == values.max()
        assert sums.at_min[c] == (values == values.min()).sum()
        assert sums.at_max[c] == (values == values.max()).sum()
        assert sums.at_zero[c] == (values == 0).sum()


def check_moments(sums, batches):
    """Assert that means and sums of squares are those of the finite `batches`.

    What measures how unlike batches or samples are may be zero by chance: its tolerance is relative
    to a millionth of the variance at least, and that of variances to a thousandth of its square.
    """
    assert sums.batches == len(batches)
    assert sums.samples == sum(len(x) for x in batches)
    for c in range(sums.num_features):
        wanted = exact_sums(batches, c)
        values = np.concatenate([rows(x, c).ravel() for x in batches])
        var = rounded((wanted["within"] + wanted["between"]) / len(values))
        for name, kept in (
            ("mean", "offset"),
            ("mean_of_samples", "sample_mean"),
            ("mean_of_batches", "batch_mean"),
        ):
            # Tighter than promised: shift and offset together have the digits for it.
            room = TOLERANCE * var**0.5 + 2.0**-51 * abs(float(wanted[name])) + 5e-324
            assert abs(two(sums, kept, c) - wanted[name]) <= room, name
        spread = 1e-6 * Fraction(var)
        floors = {"within": 0, "batch_var": 0, "batch_var_squares": 1000 * spread * Fraction(var)}
        for name in SUMS:
            if name in wanted:
                room = Fraction(TOLERANCE) * max(wanted[name], floors.get(name, spread))
                assert near(sums, name, c, wanted[name], room), (name, c)
        assert sums.values == len(values)
        assert sums.nan[c] == sums.posinf[c] == sums.neginf[c] == 0


def same_bits(one, other):
    """Whether two `InputSums` are the same to the last bit."""
    return all(
        np.asarray(getattr(one, name)).tobytes() == np.asarray(getattr(other, name)).tobytes()
        for name in one.__slots__
    )


def in_layouts(x):
    """An array (N, C, ...) with its values in memory in different orders, by name."""
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    wide[..., ::2] = x
    last = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    return {
        "contiguous": np.ascontiguousarray(x),
        "channels last": last,
        "Fortran": np.asfortranarray(x),
        "samples last": np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 0, -1)), -1, 0),
        "sequence first": np.moveaxis(np.ascontiguousarray(np.moveaxis(x, -1, 0)), 0, -1),
        "every other": wide[..., ::2],
        "backwards": np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
        "other byte order": x.astype(x.dtype.newbyteorder()),
    }
