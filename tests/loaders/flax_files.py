"""Flax's files, written with the msgpack package as flax.serialization describes them."""

import msgpack
import numpy as np


def extension(array, dtype="", kind=1):
    """An array as Flax's extension: its shape, the name of its dtype, its bytes."""
    array = np.asarray(array)
    inner = msgpack.packb((array.shape, dtype or array.dtype.name, array.tobytes()))
    return msgpack.ExtType(kind, inner)


def chunked(array, size):
    """An array in parts of so many elements, as Flax writes those of more than 1 GB."""
    flat = array.reshape(-1)
    parts = [flat[at : at + size] for at in range(0, flat.size, size)]
    return {
        "__msgpack_chunked_array__": True,
        "shape": {str(i): size for i, size in enumerate(array.shape)},
        "chunks": {str(i): extension(part) for i, part in enumerate(parts)},
    }


def tree(value):
    """A tree with arrays as it is before it becomes bytes: lists are maps with numbers as keys."""
    if isinstance(value, dict):
        return {key: tree(item) for key, item in value.items()}
    if isinstance(value, list):
        return {str(i): tree(item) for i, item in enumerate(value)}
    return extension(value) if isinstance(value, np.ndarray | np.generic) else value


def flax_file(value):
    """The bytes that flax.serialization.to_bytes gives."""
    return msgpack.packb(tree(value), use_bin_type=True)


def model(channels=4, seed=0):
    """The variables of a small network: a convolution and a BatchNorm, twice."""
    random = np.random.default_rng(seed)

    def vector():
        return random.uniform(0.5, 2, channels).astype(np.float32)

    names = ("Block_0", "Block_1")
    params = {
        name: {
            "BatchNorm_0": {"scale": vector(), "bias": vector()},
            "Conv_0": {"kernel": random.normal(size=(3, 3, channels, channels)).astype("f4")},
        }
        for name in names
    }
    stats = {name: {"BatchNorm_0": {"mean": vector(), "var": vector()}} for name in names}
    return {"params": params, "batch_stats": stats}


def flat(tree_, prefix=""):
    """The arrays of a tree by their names, joined by "/"."""
    found = {}
    for key, value in tree_.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}/")
        else:
            found[f"{prefix}{key}"] = value
    return found


def haiku_arrays(layers=("resnet/~/initial_bn", "resnet/block/bn"), channels=3):
    """The parameters and the state of a Haiku network, as its two trees join their names."""
    random = np.random.default_rng(1)
    arrays = {}
    for layer in layers:
        for leaf in ("scale", "offset"):
            arrays[f"params/{layer}/{leaf}"] = random.random((1, 1, 1, channels), np.float32)
        for which in ("mean_ema", "var_ema"):
            for leaf in ("average", "hidden"):
                arrays[f"state/{layer}/~/{which}/{leaf}"] = random.random(
                    (1, 1, 1, channels), np.float32
                )
            arrays[f"state/{layer}/~/{which}/counter"] = np.int32(300)
    return arrays
