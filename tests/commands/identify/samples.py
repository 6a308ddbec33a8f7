"""What several of these tests have in common."""

from __future__ import annotations

import numpy as np
import torch

KEYS = {"rank", "mode", "ddof", "eps", "variant", "max_abs_diff", "explains"}


def saved_layer(save):
    """x.npy, a module's state in bn.pt, and its output in eval mode with eps 1e-3 in y.npy."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(8, 3, 4)) + 1).astype(np.float32)
    module = torch.nn.BatchNorm1d(3, eps=1e-3)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([1.0, 2.0, 0.5]))
        module.bias.copy_(torch.tensor([0.0, 1.0, -1.0]))
        module.running_mean.copy_(torch.tensor([0.5, 1.0, 0.0]))
        module.running_var.copy_(torch.tensor([0.01, 1.0, 4.0]))
    save("x.npy", x)
    save("bn.pt", module.state_dict())
    save("y.npy", module.eval()(torch.from_numpy(x)).detach().numpy())
    return module
