"""Small Keras models as HDF5 files and archives, written by h5py as Keras' documents describe them.

No Keras is needed: these are the layouts of `model.save_weights` and `model.save` of Keras 2, and
of Keras 3's `.weights.h5` and `.keras`.
"""

import io
import json
import zipfile

import h5py
import numpy as np

EPS, MOMENTUM = 2e-3, 0.9


def vectors(seed=0, width=4):
    """gamma, beta, moving_mean and moving_variance."""
    random = np.random.default_rng(seed)
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    return {name: random.random(width).astype(np.float32) + 0.5 for name in names}


def kernel(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def batch_norm(name, before, *, axis=-1, keras=3, **config):
    """A BatchNormalization layer of a config."""
    values = {"name": name, "trainable": True, "axis": axis, "momentum": MOMENTUM}
    values |= {"epsilon": EPS, "center": True, "scale": True} | config
    return layer("BatchNormalization", name, before, keras=keras, config=values)


def layer(class_name, name, before=None, *, keras=3, config=None):
    """Any layer of a config that takes the output of one other."""
    if before is None:
        nodes = []
    elif keras == 2:
        nodes = [[[before, 0, 0, {}]]]
    else:
        tensor = {"class_name": "__keras_tensor__", "config": {"keras_history": [before, 0, 0]}}
        nodes = [{"args": [tensor], "kwargs": {}}]
    dtype = {"class_name": "DTypePolicy", "config": {"name": "float32"}}
    config = {"name": name, "dtype": dtype, "activation": "linear"} | (config or {})
    return {"class_name": class_name, "name": name, "config": config, "inbound_nodes": nodes}


def functional(*layers, name="net", class_name="Functional", before=None, keras=3):
    """A model as a config; `before` says whose output it takes inside of another one."""
    return layer(class_name, name, before, keras=keras, config={"layers": list(layers)})


def keras_2(groups, config=None, *, version="2.3.1", whole=True, **options):
    """An HDF5 file of Keras 2 with {layer: {weight's name: values}}, `whole` with its config."""
    out = io.BytesIO()
    with h5py.File(out, "w", **options) as file:
        weights = file.create_group("model_weights") if whole else file
        weights.attrs["layer_names"] = np.array([name.encode() for name in groups])
        for place in {file, weights}:
            place.attrs["backend"] = np.bytes_(b"tensorflow")
            place.attrs["keras_version"] = np.bytes_(version.encode())
        if config is not None:
            file.attrs["model_config"] = np.bytes_(json.dumps(config).encode())
        for name, variables in groups.items():
            group = weights.create_group(name)
            group.attrs["weight_names"] = np.array([key.encode() for key in variables], "S")
            for key, values in variables.items():
                group[key] = values
    return out.getvalue()


def keras_3(groups, names=None, **options):
    """A `.weights.h5` with {group: its variables in order}; `names` are the layers' own."""
    out = io.BytesIO()
    with h5py.File(out, "w", **options) as file:
        for place, name in (names or {}).items():
            file.create_group(f"{place}/vars").attrs["name"] = name
        for place, variables in groups.items():
            group = file.require_group(f"{place}/vars")
            for number, values in enumerate(variables):
                group[str(number)] = values
    return out.getvalue()


def archive(weights, config, *, compression=zipfile.ZIP_STORED, version="3.11.3"):
    """A `.keras` archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as packed:
        packed.writestr("metadata.json", json.dumps({"keras_version": version}))
        packed.writestr("config.json", json.dumps(config))
        packed.writestr("model.weights.h5", weights)
    return out.getvalue()


def variables(data):
    """What h5py reads of the datasets of an HDF5 file, by path."""
    found = {}
    with h5py.File(io.BytesIO(data)) as file:

        def note(path, item):
            if isinstance(item, h5py.Dataset):
                found[path] = item[...]

        file.visititems(note)
    return found


def net_2():
    """A Keras 2 model of a convolution, a layer, and a model with one more, with its config."""
    groups = {
        "conv": {"conv/kernel:0": kernel(3, 3, 2, 4)},
        "bn": {f"bn/{key}:0": values for key, values in vectors(1).items()},
        "inner": {
            "fc/kernel:0": kernel(4, 3),
            "fc/bias:0": kernel(3),
            **{f"bn/{key}:0": values for key, values in vectors(2, 3).items() if key != "gamma"},
        },
    }
    inner = functional(
        layer("Dense", "fc", keras=2),
        batch_norm("bn", "fc", axis=[1], scale=False, keras=2),
        name="inner", class_name="Model", before="bn", keras=2,
    )  # fmt: skip
    config = functional(
        layer("Conv2D", "conv", keras=2),
        batch_norm("bn", "conv", axis=[3], keras=2),
        inner, class_name="Model", keras=2,
    )  # fmt: skip
    return groups, config


def net_3():
    """The same network in Keras 3: its groups, the names of its layers, its config."""
    first, second = vectors(1), vectors(2, 3)
    del second["gamma"]
    groups = {
        "layers/conv2d": [kernel(3, 3, 2, 4)],
        "layers/batch_normalization": list(first.values()),
        "layers/functional/layers/dense": [kernel(4, 3), kernel(3)],
        "layers/functional/layers/batch_normalization": list(second.values()),
    }
    own = ("conv", "bn", "fc", "bn")
    inner = functional(
        layer("Dense", "fc"), batch_norm("bn", "fc", scale=False), name="inner", before="bn"
    )
    config = functional(layer("Conv2D", "conv"), batch_norm("bn", "conv"), inner)
    names = dict(zip(groups, own, strict=True)) | {"layers/functional": "inner"}
    return groups, names, config
