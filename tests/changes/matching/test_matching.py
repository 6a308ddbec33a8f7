"""Which layers of two files belong together."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bncli.changes.matching import matched
from bncli.errors import MissingTensorError
from bncli.loaders import open_file
from bncli.model import TensorFile, TensorRef
from bncli.model.changes import How
from bncli.report import Certainty
from tests.changes.files import made, network, norm
from tests.sampling import sampled

CORPUS = Path(
    os.environ.get("BNCLI_CORPUS") or Path(__file__).parents[2].parent / "shared" / "corpus"
)
WIDTHS = (8, 16, 16, 32)
CERTAIN, LIKELY = Certainty.CERTAIN, Certainty.LIKELY
KERAS = dict(
    zip(
        ("weight", "bias", "running_mean", "running_var"),
        ("gamma", "beta", "moving_mean", "moving_variance"),
        strict=True,
    )
)


def names(matches):
    """Both names of each match, None where a file has no such layer."""
    return [(each.a and each.a.name, each.b and each.b.name) for each in matches]


def pairs(a, b, *parts):
    """The matches of two files of these tensors."""
    return matched(made(a), made(b), *parts)


def kinds(matches):
    """How each pair was matched, and how sure that is."""
    return {(each.how, each.sure) for each in matches}


def inside(prefix, tensors):
    return {f"{prefix}{name}": values for name, values in tensors.items()}


def without(tensors, *ends):
    return {name: values for name, values in tensors.items() if not name.endswith(ends)}


# ------------------------------------------------------------------ by name


@given(
    st.lists(st.sampled_from(["module", "model", "state_dict", "_orig_mod", "net"]), max_size=3),
    st.lists(st.sampled_from(["module", "model", "state_dict", "backbone", "a.b"]), max_size=3),
    st.sampled_from("./"),
)
def test_a_wrapper_may_be_before_either(before, other, end):
    ours = inside("".join(f"{each}." for each in before), network(WIDTHS, seed=1))
    theirs = inside("".join(f"{each}." for each in other), network(WIDTHS, seed=2))
    theirs = {name.replace(".", end): values for name, values in theirs.items()}
    found = pairs(ours, theirs)
    assert len(found) == len(WIDTHS)
    assert kinds(found) == {(How.NAME, CERTAIN)}
    for one, two in names(found):
        assert one.split(".")[-2:] == two.replace("/", ".").split(".")[-2:]


def test_a_wrapper_may_be_inside():
    ours = network(WIDTHS, seed=1)
    theirs = network(WIDTHS, seed=2, name="layer{}._checkpoint_wrapped_module.bn")
    assert kinds(pairs(ours, theirs)) == {(How.NAME, CERTAIN)}


def test_a_backbone_alone_is_found_in_a_whole_model():
    whole = inside("backbone.", network(WIDTHS, seed=1)) | network((5, 7), "head.", seed=2)
    found = names(pairs(network(WIDTHS, seed=3), whole))
    assert found == [
        *((f"layer{at}.bn", f"backbone.layer{at}.bn") for at in range(4)),
        (None, "head.layer0.bn"),
        (None, "head.layer1.bn"),
    ]
    backwards = names(pairs(whole, network(WIDTHS, seed=3)))
    assert backwards == [tuple(reversed(each)) for each in found]


def test_a_layer_that_is_called_alike_by_chance_does_not_decide():
    # `bn` is the first layer of the backbone, and something else beside the backbone
    ours = norm("bn", 8, 1) | network(WIDTHS, seed=1)
    theirs = norm("bn", 64, 2) | inside("backbone.", norm("bn", 8, 3) | network(WIDTHS, seed=3))
    found = names(pairs(ours, theirs))
    assert found[0] == ("bn", "backbone.bn")
    assert found[-1] == (None, "bn")


def test_the_live_model_is_matched_with_the_live_one_and_the_average_with_the_average():
    both = inside("state_dict.", network(WIDTHS, seed=1)) | inside(
        "state_dict_ema.", network(WIDTHS, seed=2)
    )
    found = pairs(both, both)
    assert all(one == two for one, two in names(found))
    assert kinds(found) == {(How.NAME, CERTAIN)}
    assert all(one == two for one, two in names(pairs(both, without(both, "0.bn.bias"))))


def test_of_live_model_and_average_under_other_names_each_gets_its_own():
    ours = inside("model.", network(WIDTHS, seed=1)) | inside("ema.", network(WIDTHS, seed=2))
    theirs = inside("net_ema.", network(WIDTHS, seed=3)) | inside("net.", network(WIDTHS, seed=4))
    found = pairs(ours, theirs)
    assert {tuple(name.split(".")[0] for name in pair) for pair in names(found)} == {
        ("model", "net"),
        ("ema", "net_ema"),
    }


def test_one_network_against_a_live_one_and_its_average():
    both = inside("state_dict_ema.", network(WIDTHS, seed=2)) | inside(
        "state_dict.", network(WIDTHS, seed=1)
    )
    found = pairs(network(WIDTHS, seed=5), both)
    assert names(found)[:4] == [(f"layer{at}.bn", f"state_dict.layer{at}.bn") for at in range(4)]
    assert kinds(found[:4]) == {(How.NAME, LIKELY)}
    exported = pairs(network(WIDTHS, seed=2), both)  # the average, bit for bit
    assert names(exported)[0] == ("layer0.bn", "state_dict_ema.layer0.bn")
    assert kinds(exported[:4]) == {(How.NAME, CERTAIN)}


def test_two_networks_in_a_file_are_each_found_under_their_new_name():
    ours = network(WIDTHS, "generator.", seed=1) | network(
        (9, 10, 11), "discriminator.", seed=2, name="block{}.bn"
    )
    theirs = network((9, 10, 11), "netD.", seed=3, name="block{}.bn") | network(
        WIDTHS, "netG.", seed=4
    )
    found = pairs(ours, theirs)
    assert len(found) == 7
    assert all(each.how is How.NAME for each in found)
    assert {tuple(name.split(".")[0] for name in pair) for pair in names(found)} == {
        ("generator", "netG"),
        ("discriminator", "netD"),
    }


def test_a_layer_of_another_width_is_matched_by_its_name():
    found = pairs(norm("bn1", 8, 1) | norm("bn2", 8, 2), norm("bn1", 8, 1) | norm("bn2", 12, 2))
    assert names(found) == [("bn1", "bn1"), ("bn2", "bn2")]


def test_a_block_is_not_taken_for_another_block():
    ours = network(WIDTHS, "layer1.", seed=1) | network(WIDTHS, "layer2.", seed=2)
    theirs = network(WIDTHS, "layer1.", seed=3) | network(WIDTHS, "layer5.", seed=4)
    found = names(pairs(ours, theirs))
    assert ("layer1.layer0.bn", "layer1.layer0.bn") in found
    # likely by their order, and not said to have the same names
    assert found[4:] == [(f"layer2.layer{at}.bn", f"layer5.layer{at}.bn") for at in range(4)]
    assert {each.how for each in pairs(ours, theirs)[4:]} == {How.ORDER}


def test_the_order_is_that_of_the_first_file_and_then_that_of_the_second():
    ours = norm("c", 4, 1) | norm("a", 5, 2) | norm("x", 6, 3)
    theirs = norm("z", 7, 4) | norm("a", 5, 5) | norm("c", 4, 6) | norm("y", 8, 7)
    assert names(pairs(ours, theirs)) == [
        ("c", "c"),
        ("a", "a"),
        ("x", None),
        (None, "z"),
        (None, "y"),
    ]


def sequence(widths, step, first=1, prefix=""):
    """Convolutions and norms in a sequence in which a norm is at every `step`."""
    tensors: dict[str, np.ndarray] = {}
    inputs = 3
    for at, width in enumerate(widths):
        place = first + at * step
        tensors[f"{prefix}{place - 1}.weight"] = np.zeros((width, inputs, 3, 3))
        tensors |= norm(f"{prefix}{place}", width, at)
        inputs = width
    return tensors


@pytest.mark.parametrize("prefix", ["", "module."])
def test_sequences_with_other_numbers_are_matched_by_order(prefix):
    widths = (8, 16, 32, 64, 128)
    moved = {
        name: values * 2 if values.ndim == 1 else values
        for name, values in sequence(widths, 2, prefix=prefix).items()
    }
    found = pairs(sequence(widths, 3), moved)
    assert names(found) == [(str(1 + 3 * at), f"{prefix}{1 + 2 * at}") for at in range(5)]
    assert {each.how for each in found} == {How.ORDER}


def test_a_sequence_that_lost_a_layer_keeps_its_names():
    ours = sequence((8, 16, 32, 64), 3)
    theirs = {name: values for name, values in ours.items() if not name.startswith("4.")}
    assert names(pairs(ours, theirs)) == [("1", "1"), ("4", None), ("7", "7"), ("10", "10")]


def test_one_layer_and_several_that_are_called_so():
    several = {}
    for at in range(5):
        several |= norm(f"experts.{at}.bn", 8, at)
    assert not any(each.a and each.b for each in pairs(norm("bn", 8, 9), several))
    assert names(pairs(norm("bn", 8, 3), several))[0] == ("bn", "experts.3.bn")  # bit for bit


# ------------------------------------------------------------------ as other frameworks name them


def test_the_tensors_of_another_framework():
    ours = network(WIDTHS, seed=1)
    found = pairs(ours, network(WIDTHS, seed=2, leaves=KERAS, joint="/"))
    assert kinds(found) == {(How.NAMING, CERTAIN)}
    assert len(found) == len(WIDTHS)


def test_the_names_of_layers_as_mxnet_joins_them():
    leaves = KERAS | {"running_var": "moving_var"}
    ours = network(WIDTHS, seed=1, name="stage{}.bn")
    theirs = network(WIDTHS, seed=2, name="stage{}_bn", leaves=leaves, joint="_")
    found = pairs(ours, theirs)
    assert names(found) == [(f"stage{at}.bn", f"stage{at}_bn") for at in range(4)]
    assert kinds(found) == {(How.NAMING, CERTAIN)}


def test_a_name_that_keras_writes_twice():
    ours = network(WIDTHS, seed=1, name="bn_{}", leaves=KERAS, joint="/")
    theirs = network(WIDTHS, seed=2, name="bn_{0}/bn_{0}", leaves=KERAS, joint="/")
    assert names(pairs(ours, theirs)) == [(f"bn_{at}", f"bn_{at}/bn_{at}") for at in range(4)]


# ------------------------------------------------------------------ layers that lost tensors


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("ends", [("running_mean", "running_var", "num_batches_tracked")])
def test_layers_without_statistics_are_matched(lost, ends):
    files = [network(WIDTHS, seed=1), inside("module.", network(WIDTHS, seed=2))]
    files[lost] = without(files[lost], *ends)
    found = pairs(*files)
    assert names(found) == [(f"layer{at}.bn", f"module.layer{at}.bn") for at in range(4)]
    assert kinds(found) == {(How.NAME, CERTAIN)}


def test_a_layer_that_has_statistics_alone_is_matched():
    ours, theirs = network(WIDTHS, seed=1), network(WIDTHS, seed=2)
    theirs = without(theirs, "layer1.bn.weight", "layer1.bn.bias", "layer1.bn.num_batches_tracked")
    assert names(pairs(ours, theirs)) == [(f"layer{at}.bn", f"layer{at}.bn") for at in range(4)]


def test_a_layer_of_which_nothing_is_left_has_no_partner():
    ours = network(WIDTHS, seed=1)
    theirs = {name: values for name, values in ours.items() if not name.startswith("layer2.bn")}
    found = pairs(ours, theirs)
    assert names(found)[2] == ("layer2.bn", None)
    assert found[2].how is None
    assert names(pairs(theirs, ours))[-1] == (None, "layer2.bn")


def test_an_average_with_statistics_is_not_taken_for_the_model_that_lost_them():
    ours = network(WIDTHS, seed=1)
    bare = without(ours, "running_mean", "running_var", "num_batches_tracked")
    found = names(pairs(ours, bare | inside("ema.", network(WIDTHS, seed=2))))
    assert found[:4] == [(f"layer{at}.bn", f"layer{at}.bn") for at in range(4)]
    assert len(found) == 8


def test_what_has_no_statistics_in_either_file_is_no_layer():
    bare = without(network(WIDTHS, seed=1), "running_mean", "running_var", "num_batches_tracked")
    assert pairs(bare, bare) == []
    convolution = {"layer0.bn.weight": np.ones((8, 3, 3, 3)), "layer0.bn.bias": np.zeros(8)}
    assert names(pairs(norm("layer0.bn", 8, 1), convolution)) == [("layer0.bn", None)]


# ------------------------------------------------------------------ by contents and order


def only_norms(widths, seed, name="n{}"):
    layers = (norm(name.format(at), width, seed + at) for at, width in enumerate(widths))
    return {leaf: values for layer in layers for leaf, values in layer.items()}


@given(st.permutations(range(6)))
def test_equal_contents_match_whatever_names_and_order_are(order):
    ours = only_norms([16] * 6, 1)
    theirs = {}
    for place, at in enumerate(order):
        theirs |= norm(f"other{place}x", 16, 1 + at)
    found = pairs(ours, theirs)
    assert kinds(found) == {(How.VALUES, CERTAIN)}
    assert dict(names(found)) == {f"n{at}": f"other{place}x" for place, at in enumerate(order)}


def test_contents_match_across_dtypes_that_hold_them():
    ours = only_norms([16, 16, 16], 1)
    theirs = {
        name.replace("n", "q", 1): values.astype(np.float32).astype(np.float64)
        for name, values in ours.items()
    }
    assert kinds(pairs(ours, theirs)) == {(How.VALUES, CERTAIN)}


def test_fresh_layers_are_not_equal_by_their_contents():
    ours = norm("a", 8) | norm("b", 8, 1)
    theirs = norm("x", 8, 1) | norm("y", 8)
    found = pairs(ours, theirs)
    assert ("b", "x") in names(found)
    assert ("a", "y") in names(found)  # what is left, in order
    assert {each.sure for each in found if each.a.name == "a"} == {LIKELY}


def test_equal_sequences_of_widths():
    ours = network((8, 16, 32, 64), seed=1)
    theirs = network((8, 16, 32, 64), seed=2, name="stage{}xx.bn")
    found = pairs(ours, theirs)
    assert names(found) == [(f"layer{at}.bn", f"stage{at}xx.bn") for at in range(4)]
    assert kinds(found) == {(How.ORDER, LIKELY)}


def test_a_file_that_is_sorted_by_name_is_put_in_order():
    widths = [*range(4, 16)]
    ours = only_norms(widths, 1, "n{}")
    theirs = only_norms(widths, 100, "batch_{}")
    theirs = dict(sorted(theirs.items()))
    assert names(pairs(ours, theirs)) == [(f"n{at}", f"batch_{at}") for at in range(12)]


def test_an_inserted_layer_is_left_over_and_the_others_match():
    ours = only_norms((4, 8, 12, 16, 20), 1)
    theirs = only_norms((4, 8, 10, 12, 16, 20), 100, "other{}x")
    found = names(pairs(ours, theirs))
    assert found[:5] == [
        ("n0", "other0x"),
        ("n1", "other1x"),
        ("n2", "other3x"),
        ("n3", "other4x"),
        ("n4", "other5x"),
    ]
    assert found[5:] == [(None, "other2x")]


def test_layers_that_could_be_either_are_left_alone():
    ours = only_norms((4, 8, 8, 12, 16), 1)
    theirs = only_norms((4, 8, 12, 16), 100, "other{}x")
    found = names(pairs(ours, theirs))
    assert ("n0", "other0x") in found
    assert ("n3", "other2x") in found
    assert ("n1", None) in found
    assert ("n2", None) in found
    assert (None, "other1x") in found


def test_networks_with_some_equal_widths_are_not_matched():
    ours = only_norms((64, 64, 128, 128, 256, 256), 1)
    theirs = only_norms((32, 16, 24, 64, 96, 128, 160, 320), 100, "other{}x")
    assert not any(one and two for one, two in names(pairs(ours, theirs)))


def test_layers_behind_other_convolutions_are_not_matched():
    ours = network((8, 16, 32, 64), seed=1)
    theirs = network((8, 16, 32, 64), seed=2, name="stage{}xx.bn")
    theirs = {
        name: np.zeros((values.shape[0], 1, 5, 5)) if name.endswith("conv.weight") else values
        for name, values in theirs.items()
    }
    assert not any(one and two for one, two in names(pairs(ours, theirs)))


def test_one_layer_each_of_one_width():
    found = pairs(norm("a", 8, 1), norm("x", 8, 2))
    assert names(found) == [("a", "x")]
    assert kinds(found) == {(How.ORDER, LIKELY)}
    assert names(pairs(norm("a", 8, 1), norm("x", 9, 2))) == [("a", None), (None, "x")]
    assert names(pairs(norm("a", 8, 1), only_norms((7, 8), 2))) == [
        ("a", None),
        (None, "n0"),
        (None, "n1"),
    ]


def test_a_port_of_a_keras_network_is_matched_by_order():
    widths = (8, 16, 16, 32, 32, 64, 64, 64, 96, 96, 128, 160)
    torch_file = network(widths, seed=1, name="features.{}.bn")
    keras: dict[str, np.ndarray] = {}
    inputs = 3
    for at, width in enumerate(widths):
        end = f"_{at}" if at else ""
        keras |= {f"conv2d{end}/kernel:0": np.zeros((3, 3, inputs, width))}
        keras |= norm(f"batch_normalization{end}", width, at + 50, leaves=KERAS, joint="/")
        inputs = width
    expected = [
        (f"features.{at}.bn", f"batch_normalization_{at}".removesuffix("_0")) for at in range(12)
    ]
    for tensors in (keras, dict(sorted(keras.items()))):
        found = pairs(torch_file, tensors)
        assert names(found) == expected
        assert kinds(found) == {(How.ORDER, LIKELY)}
        assert names(pairs(tensors, torch_file))[0] == ("batch_normalization", "features.0.bn")


def test_pickled_modules_and_other_containers(folder):
    class_names = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.InstanceNorm2d(8))
    torch.save(class_names, "module.pt")
    torch.save({"model": class_names.state_dict()}, "state.pth")
    safetensors.torch.save_file(class_names.state_dict(), "state.safetensors")
    files = [open_file(Path(name)) for name in ("module.pt", "state.pth", "state.safetensors")]
    for a, b in itertools.permutations(files, 2):
        found = matched(a, b)
        assert [(each.a.name[-1], each.b.name[-1]) for each in found] == [("1", "1")]
        assert kinds(found) == {(How.NAME, CERTAIN)}


# ------------------------------------------------------------------ parts


def test_the_parts_that_the_user_named():
    both = inside("state_dict.", network(WIDTHS, seed=1)) | inside(
        "state_dict_ema.", network(WIDTHS, seed=2)
    )
    found = pairs(both, both, ("state_dict", "state_dict_ema"))
    assert names(found) == [
        (f"state_dict.layer{at}.bn", f"state_dict_ema.layer{at}.bn") for at in range(4)
    ]
    assert kinds(found) == {(How.NAME, CERTAIN)}
    one = pairs(both, both, ("state_dict_ema", ""))
    assert names(one)[:4] == [(f"state_dict_ema.layer{at}.bn",) * 2 for at in range(4)]


def test_a_single_layer_may_be_the_part():
    tensors = network((8, 8, 8), seed=1)
    found = pairs(tensors, tensors, ("layer0.bn", "layer2.bn"))
    assert names(found) == [("layer0.bn", "layer2.bn")]


def test_a_part_that_is_not_there():
    both = inside("state_dict.", network(WIDTHS, seed=1))
    with pytest.raises(MissingTensorError, match="did you mean state_dict"):
        pairs(both, both, ("", "state_dikt"))


# ------------------------------------------------------------------ real files, and size


@pytest.mark.corpus
@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"there is no {CORPUS}")
def test_published_networks_match_where_they_are_one_architecture():
    faces = [
        "ultra-light-fd/version-RFB-320.pth",
        "ultra-light-fd/RFB-320-masked_face-v2.pth",
        "ultra-light-fd-series/RFB-Epoch-000.pth",
        "ultra-light-fd-series/RFB-Epoch-499.pth",
    ]
    others = [
        "yunet/yunet_n.pth",
        "silent-face/2.7_80x80_MiniFASNetV2.pth",
        "3ddfa-v2/mb05_120x120.pth",
        "yolo-fastest/FastestDet_weight_AP05_0.253207.pth",
        "cgcnn/semi-metal-classification.pth.tar",
        "burn/multi_layer.safetensors",
    ]
    files = {name: open_file(CORPUS / name) for name in (*faces, *others)}
    for one, two in itertools.combinations(files, 2):
        found = matched(files[one], files[two])
        if two in faces:
            assert kinds(found) == {(How.NAME, CERTAIN)}
            assert len(found) == 35
        else:
            assert not any(each.a and each.b for each in found), (one, two)


def many_layers(count, name):
    """A file of many small layers, which share one array."""
    mean = np.zeros(4, np.float32)
    leaves = ("running_mean", "running_var", "weight", "bias")
    tensors = [f"{name.format(at)}.{leaf}" for at in range(count) for leaf in leaves]
    refs = {
        name: TensorRef(name, Path("a"), (4,), "float32", (1,), lambda: mean) for name in tensors
    }
    return TensorFile(Path("a"), "npz", refs)


@pytest.mark.parametrize(
    "name",
    sampled(["blocks.{}.bn", "wrapped.blocks.{}.bn", "quite_other.x{}y"], lambda at: at == 1),
)
def test_ten_thousand_layers(name):
    # a second or two: work that grows with the square would take minutes
    found = matched(many_layers(10_000, "blocks.{}.bn"), many_layers(10_000, name))
    assert len(found) == 10_000
    assert all(each.a and each.b for each in found)


@given(st.lists(st.integers(1, 4), max_size=8), st.lists(st.integers(1, 4), max_size=8))
@settings(max_examples=50)
def test_every_layer_is_listed_once(ours, theirs):
    found = pairs(only_norms(ours, 1, "{}.bn"), only_norms(theirs, 50, "{}.other.bn"))
    first = [each.a.name for each in found if each.a]
    assert first == [f"{at}.bn" for at in range(len(ours))]
    second = [each.b.name for each in found if each.b]
    assert sorted(second) == sorted(f"{at}.other.bn" for at in range(len(theirs)))
    assert all((each.how is None) == (each.a is None or each.b is None) for each in found)


@pytest.mark.parametrize("parts", [("", ""), ("", "ema"), ("", "model")])
def test_a_layer_called_as_many_others_end_is_matched_in_a_part(parts):
    """A ResNet's bn1 is also the end of layer1.0.bn1 and of all like it."""
    layers = ["bn1", *(f"layer{at}.{block}.bn1" for at in (1, 2, 3, 4) for block in (0, 1, 2))]
    net = {}
    for at, name in enumerate(layers):
        net |= norm(name, WIDTHS[at % 4], seed=at)
    other = inside("model.module.", net) | inside("ema.module.", net)
    found = names(matched(made(net), made(other), parts))
    part = parts[1] or "model"
    assert [pair for pair in found if pair[0]] == [
        (name, f"{part}.module.{name}") for name in layers
    ]


@pytest.mark.parametrize("part", ["GA", "GB", "DB"])
def test_of_parts_that_fit_equally_the_one_with_correlated_weights_is_meant(part):
    ours = {}
    for seed, name in enumerate(("GA", "GB", "DA", "DB")):
        ours |= network((16, 16, 16, 16), f"{name}.", seed=seed + 1)
    rng = np.random.default_rng(9)
    begin = f"{part}."
    theirs = {
        name.removeprefix(begin): values + 0.3 * rng.normal(0, 1, values.shape)
        if values.ndim
        else values
        for name, values in ours.items()
        if name.startswith(begin)
    }
    found = [each for each in pairs(ours, theirs) if each.a and each.b]
    assert names(found) == [(f"{part}.layer{at}.bn", f"layer{at}.bn") for at in range(4)]
    assert kinds(found) == {(How.NAME, CERTAIN)}
