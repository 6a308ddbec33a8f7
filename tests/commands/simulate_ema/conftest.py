"""What several of these tests begin with."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.commands.samples import random


@pytest.fixture
def bad_inputs(save, folder):
    """Files for the refusals, and one good x.npy of shape (4, 3, 5)."""
    save("x.npy", random(4, 3, 5))
    save("four.npy", random(4, 4, 5))
    save("vec.npy", random(4))
    save("empty.npy", np.ones((0, 4, 3), np.float32))
    save("w3.npy", np.ones(3))
    save("w4.npy", np.ones(4))
    save("ck.pt", {"norm.weight": torch.ones(3), "norm.bias": torch.zeros(3)})
    head = "batch,channel,mean,var,count\n"
    for name, text in {
        "t.csv": head + "0,0,1,2,8\n",
        "nocount.csv": "batch,channel,mean,var\n0,0,1,2\n",
        "word.csv": head + "0,0,1,2,8\n1,0,red,2,8\n",
        "twice.csv": head + "0,0,1,2,8\n0,0,1,2,8\n",
        "gap.csv": head + "0,0,1,2,8\n0,1,1,2,8\n1,0,1,2,8\n",
        "half.csv": head + "0,0,1,2,8.5\n",
        "zero.csv": head + "0,0,1,2,0\n",
        "below.csv": head + "0,0,1,-2,8\n",
        "uneven.csv": head + "0,0,1,2,8\n0,1,1,2,9\n",
        "none.csv": head,
    }.items():
        (folder / name).write_text(text)
    (folder / "binary.csv").write_bytes(b"\xff\xfe\x00")
    save("flat.npz", mean=np.ones(3), var=np.ones(3), count=np.ones(3))
    save("shapes.npz", mean=np.ones((2, 3)), var=np.ones((2, 4)), count=8)
    save("counts.npz", mean=np.ones((2, 3)), var=np.ones((2, 3)), count=np.ones(3))
    (folder / "folder.png").mkdir()
    return folder
