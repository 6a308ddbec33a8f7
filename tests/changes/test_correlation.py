"""How far weights of two files are correlated."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.changes.correlation import cosine_of, is_weight, judged, out_first
from tests.changes.files import ref

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(0, 1, (8, 6, 3, 3)).astype(np.float32)


def test_equal_weights_count_as_much_as_any_can():
    assert cosine_of(ref("w.weight", KERNEL), ref("w.weight", KERNEL)) == (1.0, 4096.0)


def test_a_constant_weight_tells_nothing():
    assert cosine_of(ref("w.weight", KERNEL), ref("w.weight", np.ones_like(KERNEL))) is None


@pytest.mark.parametrize("joint", [".", "/"])
def test_a_kernel_of_another_framework_has_its_outputs_first(joint):
    turned = np.ascontiguousarray(KERNEL.transpose(2, 3, 1, 0))
    found = out_first(ref(f"conv{joint}kernel", turned))
    assert found.shape == KERNEL.shape


def test_what_is_a_weight():
    assert is_weight(ref("w.weight", KERNEL))
    assert not is_weight(ref("w.weight", KERNEL[0, 0]))
    assert not is_weight(ref("w.weight", KERNEL.astype(np.int64)))


@pytest.mark.parametrize(
    ("cosines", "related"),
    [([0.9, 0.5, 0.4], True), ([0.01, -0.02, 0.03], False), ([0.01, 0.05, 0.6], None)],
)
def test_whether_they_are_of_one_network(cosines, related):
    assert judged([(cosine, 400.0) for cosine in cosines])[1] is related
