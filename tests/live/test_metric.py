"""`--metric`: the user's function, and what it may give."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bncli.errors import FileError, ModelError, UsageError
from bncli.live.metric import open_metric

KINDS = """
    import numpy as np
    import torch

    def number(output, batch):
        return output + batch

    def tensor(output, batch, scale=2):
        return torch.tensor([[output * scale]])

    def array(output, batch):
        return np.float32(output)

    def several(output, batch):
        return torch.ones(4, 2)

    def text(output, batch):
        return "good"

    def many(output, batch):
        return {"loss": 1.0}

    def alone(output):
        return output

    class Loss:
        def __call__(self, output, batch):
            return output - batch

    loss = Loss()
    best = 0.5
"""


@pytest.fixture
def opened(code):
    code("kinds.py", KINDS)
    return lambda name: open_metric(f"kinds.py:{name}")


@pytest.mark.parametrize(
    ("name", "wanted"), [("number", 5.0), ("tensor", 6.0), ("array", 3.0), ("loss", 1.0)]
)
def test_a_number_of_any_kind(opened, name, wanted):
    found = opened(name)(3.0, 2.0)
    assert (type(found), found) == (float, wanted)


def test_nan_is_a_number(opened):
    assert np.isnan(opened("array")(float("nan"), 0))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("several", "it gave a torch.Tensor of shape [4, 2], not one number; take the mean or "),
        ("text", "it gave a str, not a number."),
        ("many", "it gave a dict, not a number."),
    ],
)
def test_what_is_no_number_is_refused(opened, name, said):
    metric = opened(name)
    with pytest.raises(ModelError, match=r"^--metric kinds\.py:") as error:
        metric(torch.ones(2), torch.ones(2))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("spec", "error", "said"),
    [
        ("kinds", UsageError, "write file.py:name or package.module:name, such as seg.py:dice."),
        ("kinds.py:best", UsageError, "--metric kinds.py:best: it is a float, not a function."),
        ("kinds.py:alone", UsageError, "the model's output and the batch, but it takes (output)."),
        ("kinds.py:tenser", ModelError, "did you mean tensor"),
        ("gone.py:loss", FileError, "gone.py: there is no such file."),
    ],
)
def test_what_cannot_be_opened(opened, spec, error, said):
    del opened
    with pytest.raises(error) as raised:
        open_metric(spec)
    assert said in str(raised.value)
