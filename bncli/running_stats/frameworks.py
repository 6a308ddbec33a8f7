"""Every convention, read from the framework's own source.

A framework is a row of the table and an entry of `_READ`; a set of names is called after the first
framework that has it.
"""

from __future__ import annotations

from dataclasses import replace

from bncli.errors import UsageError
from bncli.running_stats.conventions import Convention, Names

TF_LEAST_EPS = 1.001e-5
"""TensorFlow's fused kernel raises any smaller eps to this, which cuDNN once wanted."""

# fmt: off
#                 weight    bias      running_mean    running_var        momentum      eps
TORCH =     Names("weight", "bias",   "running_mean", "running_var",     "momentum",   "eps")
KERAS =     Names("gamma",  "beta",   "moving_mean",  "moving_variance", "momentum",   "epsilon")
TF_V1 =     Names("scale",  "offset", "mean",         "variance",
                  "exponential_avg_factor", "epsilon")
FLAX =      Names("scale",  "bias",   "mean",         "var",             "momentum",   "epsilon")
HAIKU =     Names("scale",  "offset", "mean_ema/average", "var_ema/average",
                  "decay_rate", "eps")
SONNET =    Names("scale",  "offset", "moving_mean",  "moving_variance", "decay_rate", "eps")
EQUINOX =   Names("weight", "bias",   "running mean in State", "running var in State",
                  "momentum", "eps")
ONNX =      Names("scale",  "B",      "input_mean",   "input_var",       "momentum",   "epsilon")
ONNX_9 =    Names("scale",  "B",      "mean",         "var",             "momentum",   "epsilon")
MXNET =     Names("gamma",  "beta",   "moving_mean",  "moving_var",      "momentum",   "eps")
GLUON =     Names("gamma",  "beta",   "running_mean", "running_var",     "momentum",   "epsilon")
CAFFE =     Names("Scale blob 0", "Scale blob 1", "blob 0 / blob 2", "blob 1 / blob 2",
                  "moving_average_fraction", "eps")
PADDLE =    Names("weight", "bias",   "_mean",        "_variance",       "momentum",   "epsilon")
MINDSPORE = Names("gamma",  "beta",   "moving_mean",  "moving_variance", "momentum",   "eps")
CHAINER =   Names("gamma",  "beta",   "avg_mean",     "avg_var",         "decay",      "eps")
FLUX =      Names("γ",      "β",      "μ",            "σ²",              "momentum",   "eps")
DARKNET =   Names("scales", "biases", "rolling_mean", "rolling_variance",
                  "0.99, hard-coded", "0.000001f, hard-coded")

_ROWS = (
    #          name            weighs  momentum eps    variance    one value  axis  names
    Convention("pytorch",       "new", "0.1",   "1e-5", "unbiased", "refused", "1",  TORCH),
    Convention("keras3",        "old", "0.99",  "1e-3", "biased",   "0",       "-1", KERAS),
    Convention("tf-fused",      "old", "0.99",  "1e-3", "unbiased", "0",       "-1", KERAS,
               least_eps=TF_LEAST_EPS),
    Convention("tf-unfused",    "old", "0.99",  "1e-3", "biased",   "0",       "-1", KERAS),
    Convention("keras2",        "old", "0.99",  "1e-3", "keras2",   "0",       "-1", KERAS),
    Convention("tf-v1",         "new", "1.0",   "1e-3", "unbiased", "0",       "-1", TF_V1,
               least_eps=TF_LEAST_EPS),
    Convention("flax",          "old", "0.99",  "1e-5", "biased",   "0",       "-1", FLAX),
    Convention("haiku",         "old", None,    "1e-5", "biased",   "0",       "-1", HAIKU,
               initial_var=0.0, debias="divided"),
    Convention("sonnet",        "old", "0.999", "1e-5", "biased",   "0",       "-1", SONNET,
               initial_var=0.0, debias="divided"),
    Convention("equinox",       "old", "0.99",  "1e-5", "biased",   "0",       "0 under vmap",
               EQUINOX, debias="first"),
    Convention("equinox-batch", "old", "0.99",  "1e-5", "biased",   "0",       "0 under vmap",
               EQUINOX, debias="divided"),
    Convention("onnx",          "old", "0.9",   "1e-5", "biased",   "0",       "1",  ONNX),
    Convention("onnx-9",        "old", "0.9",   "1e-5", "biased",   "0",       "1",  ONNX_9),
    Convention("mxnet",         "old", "0.9",   "1e-3", "biased",   "0",       "1",  MXNET),
    Convention("gluon",         "old", "0.9",   "1e-5", "biased",   "0",       "1",  GLUON),
    Convention("caffe",         "old", "0.999", "1e-5", "unbiased", "0",       "1",  CAFFE,
               initial_var=0.0, debias="divided"),
    Convention("paddle",        "old", "0.9",   "1e-5", "biased",   "skipped", "1",  PADDLE),
    Convention("paddle-cudnn",  "old", "0.9",   "1e-5", "unbiased", "skipped", "1",  PADDLE),
    Convention("mindspore",     "old", "0.9",   "1e-5", "biased",   "0",       "1",  MINDSPORE),
    Convention("mindspore-gpu", "old", "0.9",   "1e-5", "unbiased", "nan",     "1",  MINDSPORE),
    Convention("mlx",           "new", "0.1",   "1e-5", "unbiased", "refused", "-1", TORCH),
    Convention("mlx-old",       "new", "0.1",   "1e-5", "biased",   "0",       "-1", TORCH),
    Convention("tinygrad",      "new", "0.1",   "1e-5", "unbiased", "nan",     "1",  TORCH),
    Convention("chainer",       "old", "0.9",   "2e-5", "unbiased", "0",       "1",  CHAINER),
    Convention("chainer-4",     "old", "0.9",   "2e-5", "unbiased", "0",       "1",  CHAINER,
               initial_var=0.0),
    Convention("flux",          "new", "0.1",   "1e-5", "unbiased", "refused", "ndims-1", FLUX),
    Convention("candle",        "new", "0.1",   "1e-5", "unbiased", "nan",     "1",  TORCH),
    Convention("burn",          "new", "0.1",   "1e-5", "biased",   "0",       "1",  GLUON),
    Convention("darknet",       "old", "0.99",  "1e-6", "unbiased", "nan",     "1",  DARKNET,
               initial_var=0.0, eps_outside_root=True),
    Convention("detectron2",    "new", "0.1",   "1e-5", "biased",   "0",       "1",  TORCH),
)
# fmt: on

_READ = {
    "pytorch": (
        "PyTorch 2.13 nn.BatchNorm",
        "torch/nn/modules/batchnorm.py (2.13.0); aten/src/ATen/native/Normalization.cpp@37f1d83f",
        "momentum=None averages all batches alike; num_batches_tracked counts them.",
    ),
    "keras3": (
        "Keras 3 BatchNormalization",
        "keras/src/layers/normalization/batch_normalization.py@3422977a",
        "trainable=False also makes the layer use the stored statistics.",
    ),
    "tf-fused": (
        "tf.keras (Keras 2), fused: 4-D and 5-D",
        "tf_keras batch_normalization.py@dd0a7237; tensorflow/core/kernels/fused_batch_norm_op.cc",
        "The factor is n/max(n - 1, 1).",
    ),
    "tf-unfused": (
        "tf.keras (Keras 2), not fused: 2-D, 3-D, float64, renorm, sync",
        "tf_keras batch_normalization.py@dd0a7237",
        "",
    ),
    "keras2": (
        "standalone Keras 2.1.3 to 2.3",
        "keras PR#9028, PR#10443",
        "The factor is n/(n - (1 + eps)): a batch with one value gives a negative one.",
    ),
    "tf-v1": (
        "tf.compat.v1.nn.fused_batch_norm",
        "tensorflow/core/kernels/fused_batch_norm_op.cc",
        "A function: the caller keeps the statistics that it returns.",
    ),
    "flax": (
        "Flax linen and nnx BatchNorm",
        "flax/linen/normalization.py, flax/nnx/nn/normalization.py@18f8f311",
        "The variance is max(0, E[x*x] - E[x]*E[x]) unless use_fast_variance is off.",
    ),
    "haiku": (
        "Haiku hk.BatchNorm",
        "haiku/_src/batch_norm.py, haiku/_src/moving_averages.py (2021)",
        "decay_rate has no default. Shapes keep their axes of size 1.",
    ),
    "sonnet": (
        "Sonnet 2 snt.BatchNorm",
        "sonnet/src/batch_norm.py, sonnet/src/moving_averages.py",
        "Fused 4-D channels-last input gives the unbiased variance.",
    ),
    "equinox": (
        'Equinox BatchNorm, mode="ema"',
        "equinox/nn/_batch_norm.py@9336d820",
        "Normalises with the running statistics in training too.",
    ),
    "equinox-batch": (
        'Equinox BatchNorm, mode="batch"',
        "equinox/nn/_batch_norm.py@9336d820",
        (
            "Divides by 1 - momentum**steps although the variance begins at 1: it reads far too "
            "large at first (derived from the source, not run)."
        ),
    ),
    "onnx": (
        "ONNX BatchNormalization 14 and 15",
        "onnx/defs/nn/defs.cc@f7546912",
        "The initial values are inputs.",
    ),
    "onnx-9": (
        "ONNX BatchNormalization 7 and 9",
        "onnx/defs/nn/old.cc; onnx/reference/ops/op_batch_normalization.py",
        "The text leaves the variance open; the reference implementation's is biased.",
    ),
    "mxnet": (
        "MXNet BatchNorm operator",
        "src/operator/nn/batch_norm-inl.h, src/operator/nn/batch_norm.cc",
        (
            "fix_gamma=True, the default, means that a stored gamma counts as 1. The native "
            "kernels update in the backward pass."
        ),
    ),
    "gluon": (
        "MXNet Gluon BatchNorm",
        "python/mxnet/gluon/nn/basic_layers.py@b84609d3",
        "The cuDNN build's variance is unbiased.",
    ),
    "caffe": (
        "Caffe BatchNorm and Scale",
        "src/caffe/layers/batch_norm_layer.cpp@9b891540",
        "Blob 2 is the sum of the weights; dividing by it removes the initial 0.",
    ),
    "paddle": (
        "PaddlePaddle nn.BatchNorm, CPU and its own GPU kernels",
        "paddle/phi/kernels/{cpu,gpu}/batch_norm_kernel; python/paddle/nn/layer/norm.py",
        "A batch with one value per channel passes through unchanged.",
    ),
    "paddle-cudnn": (
        "PaddlePaddle nn.BatchNorm with cuDNN",
        "paddle/phi/kernels/gpu/batch_norm_kernel",
        "",
    ),
    "mindspore": ("MindSpore nn.BatchNorm2d on the CPU", "mindspore nn.BatchNorm2d (oneDNN)", ""),
    "mindspore-gpu": ("MindSpore nn.BatchNorm2d on a GPU", "mindspore nn.BatchNorm2d (cuDNN)", ""),
    "mlx": (
        "MLX nn.BatchNorm since 2026-08",
        "python/mlx/nn/layers/normalization.py@43c9e0391 (PR#3817)",
        "",
    ),
    "mlx-old": (
        "MLX nn.BatchNorm before 2026-08",
        "python/mlx/nn/layers/normalization.py before 43c9e0391",
        "",
    ),
    "tinygrad": ("tinygrad nn.BatchNorm", "tinygrad/nn/__init__.py@a9069c17", ""),
    "chainer": (
        "Chainer links.BatchNormalization since 5",
        "chainer/links/normalization/batch_normalization.py@a8e15cbe",
        "The factor is n/max(n - 1, 1).",
    ),
    "chainer-4": (
        "Chainer links.BatchNormalization before 5",
        "chainer#1522; batch_normalization.py@a8e15cbe",
        "The variance begins at 0.",
    ),
    "flux": (
        "Flux.jl BatchNorm",
        "Flux.jl 0.15 src/layers/normalise.jl (now in NNlib)",
        "Before 2026-08 a batch with one value per channel was not refused.",
    ),
    "candle": (
        "candle-nn BatchNorm",
        "candle-nn/src/batch_norm.rs",
        "The momentum must be in [0, 1].",
    ),
    "burn": (
        "burn BatchNorm",
        "crates/burn-nn/src/modules/norm/batch.rs@2c06be3510",
        "Its tests quote PyTorch's numbers, of the unbiased variance, and allow for that.",
    ),
    "darknet": (
        "Darknet batchnorm",
        "src/batchnorm_layer.c, src/blas.c@f6afaabc",
        (
            "Normalises the training batch with the unbiased variance too, and divides by "
            "sqrt(var) + eps."
        ),
    ),
    "detectron2": (
        "detectron2 NaiveSyncBatchNorm",
        "detectron2/layers/batch_norm.py@02b5c4e2",
        "The variance is E[x*x] - E[x]*E[x]: PyTorch's names for a different variance.",
    ),
}
"""Of each convention: whose it is, where it was read, and a note."""

CONVENTIONS = tuple(
    replace(row, framework=framework, source=source, note=note)
    for row in _ROWS
    for framework, source, note in [_READ[row.name]]
)
"""Every convention; PyTorch's first."""


BUILT_ON = {"tensorflow": ("tf", "keras"), "jax": ("flax", "haiku", "equinox")}
"""How the names of the conventions begin that belong to a library of another name."""


def convention(name: str, flag: str = "--convention") -> Convention:
    """The convention of that name. Raises UsageError, with the nearest names, if there is none."""
    for known in CONVENTIONS:
        if known.name == name.lower():
            return known
    from difflib import get_close_matches

    names = [known.name for known in CONVENTIONS]
    begins = BUILT_ON.get(name.lower(), (name.lower(),))
    near = [known for known in names if known.startswith(begins)]
    near = near or get_close_matches(name.lower(), names, 3, 0.5)
    *others, last = near or [""]
    either = f"{', '.join(others)} or {last}" if others else last
    instead = f"did you mean {either}?" if near else "bncli conventions lists them."
    raise UsageError(f"{flag} {name}: there is no such convention; {instead}")
