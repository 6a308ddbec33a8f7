"""Reading the BatchNorm layers of a large Keras file, against Keras and against h5py."""

import os
import subprocess
import sys

from tests.loaders.published.packages import installed
from tests.loaders.published.test_keras import KERAS

from .conftest import Row
from .processes import BNCLI, raced

BY_KERAS = """
import os, sys
os.environ["KERAS_BACKEND"] = "torch"
sys.path[:0] = sys.argv[2].split(os.pathsep)
import keras
for layer in keras.models.load_model(sys.argv[1], compile=False).layers:
    if isinstance(layer, keras.layers.BatchNormalization):
        print(layer.name, layer.moving_variance.value.min().item())
"""
BY_H5PY = """
import sys, h5py
def note(name, item):
    if isinstance(item, h5py.Dataset):
        values = item[...]
        if name.endswith("moving_variance"):
            print(name, values.min())
h5py.File(sys.argv[1]).visititems(note)
"""
WRITES = """
import os, sys
os.environ["KERAS_BACKEND"] = "torch"
sys.path[:0] = sys.argv[2].split(os.pathsep)
import keras
x = given = keras.Input((8, 8, 512))
for number in range(int(sys.argv[3])):
    x = keras.layers.Conv2D(512, 3, padding="same")(x)
    x = keras.layers.BatchNormalization()(x)
keras.Model(given, x).save(sys.argv[1])
"""
LAYERS = 11


def test_inspect_checkpoint(tmp_path, rows):
    path = tmp_path / "net.h5"
    packages = os.pathsep.join(str(installed(requirement)) for requirement in KERAS)
    code = [sys.executable, "-c", WRITES, str(path), packages, str(LAYERS)]
    subprocess.run(code, check=True, capture_output=True)
    megabytes = path.stat().st_size // 1_000_000
    seconds, memory = raced(
        {
            "bncli": (BNCLI, "inspect-checkpoint", str(path), "-f", "json"),
            "Keras": (BY_KERAS, str(path), packages),
            "h5py": (BY_H5PY, str(path)),
        },
        5,
    )
    case = f"inspect-checkpoint, Keras' .h5 of {megabytes} MB"
    took = {name: min(times) for name, times in seconds.items()}
    for rival, wanted in (("Keras", 4), ("h5py", None)):
        ratio = took[rival] / took["bncli"]
        told = f"{ratio:.1f} ({took['bncli']:.2f} s; rival {took[rival]:.2f} s)"
        reached = None if wanted is None else ratio >= wanted
        case = f"inspect-checkpoint, Keras' .h5 of {megabytes} MB"
        rows.append(
            Row(case, f"{rival} script", "", f"{wanted:.2f}" if wanted else "", told, reached)
        )
    told = f"{memory['bncli']:.0f} MB; Keras {memory['Keras']:.0f} MB"
    rows.append(Row(f"{case}, memory", "80 MB", "", "", told, memory["bncli"] <= 80))
