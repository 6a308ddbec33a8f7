"""Every step of a normalisation with its formula and numbers, for chosen channels of one tensor.

`channel` reads one channel piece by piece; `text` writes numbers into formulas; `forward` and
`backward` have the steps in exact arithmetic, `float32_steps` the forward ones in PyTorch's own
(a `float32_pass`), `elements` what becomes of each value, and `identities` what must hold between
gradients. The values that they give are in `values`.
"""

from __future__ import annotations

from bncli.verify.trace.backward import Gradients, backward_steps, gradients
from bncli.verify.trace.channel import ChannelView, StoredTensor
from bncli.verify.trace.elements import MOST_ELEMENTS, Elements, elements
from bncli.verify.trace.float32_pass import MOST_ADDITIONS, Float32Pass, float32_pass
from bncli.verify.trace.float32_steps import FLOAT32_DIGITS, float32_steps
from bncli.verify.trace.forward import (
    Element,
    could_train,
    differs_at,
    forward_steps,
    of_example,
    trained,
)
from bncli.verify.trace.identities import identities
from bncli.verify.trace.text import RESULT_DIGITS, Writer
from bncli.verify.trace.values import Identity, Step

__all__ = [
    "FLOAT32_DIGITS",
    "MOST_ADDITIONS",
    "MOST_ELEMENTS",
    "RESULT_DIGITS",
    "ChannelView",
    "Element",
    "Elements",
    "Float32Pass",
    "Gradients",
    "Identity",
    "Step",
    "StoredTensor",
    "Writer",
    "backward_steps",
    "could_train",
    "differs_at",
    "elements",
    "float32_pass",
    "float32_steps",
    "forward_steps",
    "gradients",
    "identities",
    "of_example",
    "trained",
]
