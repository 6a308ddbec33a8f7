"""A capture for each rule about captures, with the fault that the rule finds, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from bncli.model.capture import Capture, Propagation, Trial, Trials
from tests.rulebook.live.captures import capture, convolved, source, stored_of, watched
from tests.rulebook.live.captures import seen as sums_of


@dataclass(frozen=True)
class Planted:
    """A capture, what was tried, the subject of the finding, and the codes that come with it."""

    capture: Capture
    subject: str = "first"
    trials: Trials | None = None
    besides: frozenset[str] = field(default_factory=frozenset)
    reference: Capture | None = None


PLANTED: dict[str, Callable[[], Planted]] = {}


def planted(code):
    """Enter a function into PLANTED."""

    def enter(make):
        PLANTED[code] = make
        return make

    return enter


def pictures(seed=0, number=16, samples=16, channels=3, size=6, bright=0.4):
    """Batches of pictures that differ in brightness."""
    rng = np.random.default_rng(seed)
    levels = [rng.normal(0, bright, (samples, channels, 1, 1)) for _ in range(number)]
    noise = [rng.normal(0, 1, (samples, channels, size, size)) for _ in range(number)]
    return [0.5 + level + each for level, each in zip(levels, noise, strict=True)]


def network(shown=None, trained=None, *, kernel_seed=0, first=None, middle=None, **given):
    """A capture of three layers, the first behind a 1 x 1 convolution that reads the input.

    `trained` are the pictures of the training, `shown` those that the capture saw. `first` and
    `middle` are arguments of these layers.
    """
    trained = pictures() if trained is None else trained
    shown = trained if shown is None else shown
    kernel = np.random.default_rng(7).normal(size=(12, 3))
    inside, read = convolved(shown, kernel)
    other = np.random.default_rng(kernel_seed).normal(size=(12, 3)) if kernel_seed else kernel
    mean, var = stored_of(convolved(trained, other)[0])
    later = [pictures(seed, len(shown), len(shown[0]), channels=8) for seed in (1, 2)]
    names = {"mean": mean, "var": var, "kernel": read} | (first or {})
    layers = (
        source(shown),
        watched("first", inside, order=1, **names),
        watched("middle", later[0], order=2, **(middle or {})),
        watched("last", later[1], order=3),
    )
    return capture(*layers, **given)


def changed(shown, name, **fields):
    """The capture with other fields in one layer."""
    layers = tuple(replace(x, **fields) if x.name == name else x for x in shown.layers)
    return replace(shown, layers=layers)


@planted("BN801")
def a_layer_in_training_mode():
    return Planted(changed(network(), "middle", in_training=True), "middle")


@planted("BN802")
def a_layer_without_buffers():
    return Planted(network(middle={"track": False}), "middle")


@planted("BN803")
def dropout_that_stays_on():
    return Planted(replace(network(), still_training=("drop", "head.drop")), "drop")


@planted("BN804")
def nan_in_the_middle():
    shown = network()
    seen = shown.layers[2].seen
    nan = seen[Propagation.TRAINING].nan.copy()
    nan[3] = 5
    dirty = {which: replace(sums, nan=nan) for which, sums in seen.items()}
    return Planted(changed(shown, "middle", seen=dirty), "middle")


@planted("BN805")
def pictures_not_divided_by_255():
    trials = Trials(
        (
            Trial("one", "first alone", ("first",), 0.21),
            Trial("input", "input divided by 255", (), 0.205),
        )
    )
    shown = [255 * batch for batch in pictures()]
    return Planted(network(shown, gap=40.0), trials=trials)


@planted("BN806")
def one_scanner_a_batch():
    shown = [batch + 2 * (i % 4) for i, batch in enumerate(pictures())]
    return Planted(network(trained=shown, gap=0.3), "the model's input")


@planted("BN807")
def statistics_of_another_checkpoint():
    middle = {"mean": 1.0, "var": 3.0}
    return Planted(network(kernel_seed=3, middle=middle, gap=0.9))


@planted("BN808")
def one_layer_spoilt():
    return Planted(network(middle={"var": 30.0}, gap=0.9), "middle")


@planted("BN809")
def statistics_of_the_last_batch():
    """Each layer's are those of one batch; the momentum that its module has is another one."""
    rng = np.random.default_rng(5)
    layers = []
    for order, name in enumerate(("first", "middle", "later", "last"), 1):
        batches = [rng.normal(0, 1, (8, 40)) for _ in range(16)]
        last = rng.normal(0, 1.1, (8, 40))
        stored = {"mean": last.mean(0), "var": last.var(0, ddof=1)}
        layers.append(watched(name, batches, order=order, **stored, class_name="BatchNorm1d"))
    return Planted(capture(*layers, gap=0.3), besides=frozenset({"BN811"}))


@planted("BN810")
def noisy_pictures():
    noise = pictures(9)
    shown = [a + 1.2 * (b - 0.5) for a, b in zip(pictures(), noise, strict=True)]
    middle = {"mean": stored_of(pictures(1, channels=8))[0] + 0.2}  # what a kernel makes of noise
    return Planted(network(shown, middle=middle, gap=0.5))


@planted("BN811")
def batches_of_two():
    return Planted(network(trained=pictures(number=64, samples=2, bright=1.0), gap=0.5))


@planted("BN812")
def dropout_before_a_layer():
    rng = np.random.default_rng(4)
    plain = pictures(3, channels=8)
    dropped = [batch * (rng.uniform(size=batch.shape) < 0.5) * 2 for batch in plain]
    mean, var = stored_of(dropped)
    shown = network(gap=0.3)
    layer = watched("middle", plain, order=2, mean=mean, var=var, as_trained=dropped)
    layers = tuple(layer if each.name == "middle" else each for each in shown.layers)
    return Planted(replace(shown, layers=layers), "middle")


@planted("BN813")
def half_of_each_picture_padded():
    shown = [batch.copy() for batch in pictures()]
    for batch in shown:
        batch[..., 3:] = 0
    return Planted(network(shown, gap=0.5))


@planted("BN814")
def two_layers_off_by_different_degrees():
    """The first one fits; of the others one is off three times as much as the next, in variance."""
    shown = network(middle={"var": 12.0}, gap=0.9)
    batches = pictures(2, channels=8)
    layer = watched("last", batches, order=3, var=1.6 * stored_of(batches)[1])
    layers = tuple(layer if each.name == "last" else each for each in shown.layers)
    return Planted(replace(shown, layers=layers), "middle")


@planted("BN815")
def a_frozen_layer():
    return Planted(changed(network(middle={"var": 30.0}), "middle", frozen=True), "middle")


@planted("BN816")
def one_batch():
    return Planted(network(pictures(number=1, samples=64), pictures(number=1, samples=64)))


@planted("BN817")
def one_value_a_channel():
    reason = "Expected more than 1 value per channel when training, got input size [1, 8]"
    single = [batch[:1, :, :1, :1] for batch in pictures(1, channels=8)]
    layer = watched("head", pictures(1, channels=8), mean=0.5, var=1.2)
    seen = {Propagation.EVAL: sums_of(single)}
    return Planted(
        replace(capture(replace(layer, seen=seen)), outputs=(), refused_training=reason), "head"
    )


@planted("BN818")
def statistics_that_do_not_settle():
    return Planted(replace(network(), rounds=20, settled=False), "last")


@planted("BN819")
def weights_that_moved():
    return Planted(replace(network(), weights_moved=True), "the model")
