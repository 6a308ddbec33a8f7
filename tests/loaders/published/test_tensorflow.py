"""The TensorFlow models that packages ship, against their bytes at the places that an index names.

The offsets were read once with TensorFlow 2.21 (`tf.train.load_checkpoint`).
"""

import hashlib

import pytest

from bncli.loaders import open_file
from bncli.model import StoredFront
from bncli.state_dict import batch_norm_layers, read_state

from .packages import installed

pytestmark = pytest.mark.published

MUSIC = "musicnn==0.1.0"
PITCH = "basic-pitch==0.4.0"
LEAVES = ("weight", "bias", "running_mean", "running_var")
SUMS = {}


def checksum(states):
    data = b"".join(
        getattr(state, leaf).tobytes() for state in sorted(states, key=lambda each: each.name)
        for leaf in LEAVES
    )  # fmt: skip
    return hashlib.sha256(data).hexdigest()[:16]
