"""A state_dict in each container, written by the container's own writer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

CONTAINERS = ("zip", "legacy", "safetensors", "npz")


def saved(path: Path, state: Mapping[str, Any], container: str = "zip") -> Path:
    """Write a state_dict; its file."""
    if container == "zip":
        torch.save(dict(state), path)
    elif container == "legacy":
        torch.save(dict(state), path, _use_new_zipfile_serialization=False)
    elif container == "safetensors":
        save_file({name: value.contiguous().clone() for name, value in state.items()}, path)
    else:
        with path.open("wb") as file:
            np.savez(file, **{name: np.asarray(value) for name, value in state.items()})
    return path
