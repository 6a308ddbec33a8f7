"""What paddle.save writes, put together as python/paddle/framework/io.py does it."""

import pickle

import numpy as np


class Named:
    """A parameter inside another object: a call of tuple with its own name and its array."""

    def __init__(self, name, array):
        self.name, self.array = name, array

    def __reduce__(self):
        return tuple, ((self.name, self.array),)


class Evaluated:
    """A tensor inside another object: a call of eval, as Paddle spells it."""

    def __init__(self, array):
        self.array = array

    def __reduce__(self):
        return eval, ("data", {"data": self.array})


def arrays(channels=3):
    """The state_dict of a convolution and a BatchNorm."""
    random = np.random.default_rng(0)
    vectors = {
        f"bn1.{leaf}": random.uniform(0.5, 2, channels).astype("f4")
        for leaf in ("weight", "bias", "_mean", "_variance")
    }
    return {"conv.weight": random.normal(size=(channels, 2, 3, 3)).astype("f4"), **vectors}


def own_names(state):
    """The own names of parameters, by theirs in the state_dict."""
    return {name: f"parameter_{number}.w_0" for number, name in enumerate(state)}


def saved(state, protocol=4, most=1 << 28):
    """A state_dict with the table of own names; arrays of more elements than `most` in parts."""
    out, table = {}, {}
    for name, array in state.items():
        if protocol < 4 and array.size > most:
            flat = array.reshape(-1)
            parts = [flat[at : at + most] for at in range(0, flat.size, most)]
            names = [f"{name}@@.{number}" for number in range(len(parts))]
            table[name] = {"OriginShape": array.shape, "slices": names}
            out |= dict(zip(names, parts, strict=True))
        else:
            out[name] = array
    out["StructuredToParameterName@@"] = own_names(state)
    if table:
        out["UnpackBigParamInfor@@"] = table
    return pickle.dumps(out, protocol)
