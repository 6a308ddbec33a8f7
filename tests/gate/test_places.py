"""Where a finding is: names with and without wrappers, patterns of them, fingerprints."""

from __future__ import annotations

import pytest

from bncli.gate.places import (
    aliases,
    common_prefix,
    fingerprint,
    fits,
    matches,
    names_in,
    names_of,
    places,
    unwrapped,
    without_wrappers,
)
from tests.findings import finding, of_layers, report

LAYERS = ("stem.bn", "layer1.0.bn1", "layer1.0.bn2", "head.1")


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("bn1", "bn1"),
        ("module.bn1", "bn1"),
        ("_orig_mod.module.bn1", "bn1"),
        ("module._orig_mod.layer1._checkpoint_wrapped_module.0.bn1", "layer1.0.bn1"),
        ("module", "module"),  # a layer that is called so
        ("modules.bn1", "modules.bn1"),
        ("state_dict.module.bn1", "state_dict.bn1"),
        ("module/block/bn1", "block.bn1"),
        ("", ""),
    ],
)
def test_wrappers_are_left_out(name, bare):
    assert unwrapped(name) == bare


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (LAYERS, ""),
        (tuple(f"state_dict.module.{name}" for name in LAYERS), "state_dict"),
        (tuple(f"model.backbone.{name}" for name in LAYERS), "model.backbone"),
        (("layer1.0.bn1", "layer1.0.bn2"), "layer1.0"),
        (("a.bn", "a.bn.bn"), "a"),
        (("bn", "bn.bn"), ""),
        (("a.b.bn",), ""),  # of one name, nobody can tell
        ((), ""),
    ],
)
def test_common_prefix(names, prefix):
    assert common_prefix(names) == prefix


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (LAYERS, ""),
        (tuple(f"module.{name}" for name in LAYERS), "module."),
        (tuple(f"state_dict/module.{name}" for name in LAYERS), "state_dict/module."),
        (tuple(f"backbone.{name}" for name in LAYERS), ""),  # a part of the network
        (("module.stem.bn", "stem.bn2"), ""),
        (("module.bn", "module"), ""),
        (("model.model.bn",), "model.model."),
        (("model.module",), "model."),
        ((), ""),
    ],
)
def test_the_wrapper_of_a_file_is_what_all_its_names_share(names, prefix):
    assert names_of(names).prefix == prefix
    assert names_of(names).every == set(names)


def test_a_name_without_wrappers_is_one_layer():
    names = names_of(("module.stem.bn", "module.head._checkpoint_wrapped_module.1"))
    assert names.bare("module.stem.bn") == "stem.bn"
    assert names.bare("module.head._checkpoint_wrapped_module.1") == "head.1"
    assert names.bare("other.bn") == "other.bn"
    assert not names.literal
    both = names_of(("bn", "module.bn"))  # which would be one
    assert both.literal
    assert both.bare("module.bn") == "module.bn"
    assert names_of(("head._orig_mod.bn", "head.bn")).bare("head._orig_mod.bn") == (
        "head._orig_mod.bn"
    )


@pytest.mark.parametrize(
    ("name", "prefix", "rest"),
    [
        ("state_dict.module.bn", "state_dict.module.", "bn"),
        ("state_dict.bn", "state_dict.module.", "bn"),  # as much of it as the name has
        ("bn", "state_dict.module.", "bn"),
        ("state_dict.", "state_dict.", "state_dict."),
        ("a._fsdp_wrapped_module.bn", "", "a.bn"),
        ("a._fsdp_wrapped_module", "", "a._fsdp_wrapped_module"),
    ],
)
def test_as_much_of_a_wrapper_as_a_name_has(name, prefix, rest):
    assert without_wrappers(name, prefix, literal=False) == rest


def test_a_literal_name_keeps_what_is_inside_of_it():
    assert without_wrappers("model.a._orig_mod.bn", "model.", literal=True) == "a._orig_mod.bn"


@pytest.mark.parametrize(
    ("name", "glob", "meant"),
    [
        ("layer1.bn", "layer1.*", True),
        ("layer1.bn", "Layer1.*", False),
        ("layer[1].bn", "layer[1].bn", True),
        ("layer[1].bn", "layer[1].*", True),
        ("layer1.bn", "layer[1].*", True),
        ("layer2.bn", "layer[1].*", False),
        ("a*b", "a*b", True),
    ],
)
def test_a_glob_means_a_name(name, glob, meant):
    assert fits(name, glob) is meant


def test_aliases_mean_one_layer():
    names = ("model.backbone.stem.bn", "model.backbone.head.bn")
    given = of_layers(*names)
    assert aliases(names[0], given, "net.pt") == {names[0], "backbone.stem.bn", "stem.bn"}
    two = of_layers("module.bn", "bn")
    assert aliases("module.bn", two, "net.pt") == {"module.bn"}
    assert aliases("bn", two, "net.pt") == {"bn"}
    assert aliases("output", two, "net.pt") == {"output"}


def test_the_places_of_a_finding():
    assert places(finding(subject="here")) == ("here",)
    assert places(finding(subject="2 layers", places=("a", "b"))) == ("a", "b")


def test_a_fingerprint_is_of_command_code_file_and_place():
    def printed(*names, command="hand-made", **more):
        found = finding(**{"code": "BN203", "subject": "bn", "path": "net.pt", **more})
        return fingerprint(found, report(found, names={"net.pt": names}, command=command))

    one = printed("bn")
    assert len(one) == 16
    assert int(one, 16) >= 0
    assert one == printed("bn", message="another number") == printed("bn", severity="info")
    assert one == printed("module.bn", subject="module.bn")
    others = (
        printed("bn", code="BN204"),
        printed("bn", subject="bn2"),
        printed("bn", path="other.pt"),
        printed("bn", command="other"),
        printed("bn", places=("bn", "bn2")),
        printed("backbone.bn", subject="backbone.bn"),
    )
    assert len({one, *others}) == 7
    assert printed("bn", path="./a/../net.pt") == one


def test_a_fingerprint_without_a_file_is_of_what_the_report_is_about():
    found = finding(subject="output")

    def printed(*about, read=("x.npy",)):
        return fingerprint(found, report(found, about=about, read=read))

    assert printed() != printed(read=("y.npy",))
    assert printed(("x.npy", "")) == printed(("./x.npy", ""), read=("y.npy",)) == printed()
    assert len({printed(("x.npz", "a")), printed(("x.npz", "b")), printed(("", "a"))}) == 3
    # What separates the parts may stand in them.
    assert printed(("a\nb", "")) != printed(("a", "b"), ("", ""))


def test_the_names_of_a_file():
    given = of_layers("module.a", "module.b")
    assert names_in(given, "net.pt").prefix == "module."
    assert names_in(given, "").every == set()


@pytest.mark.parametrize(
    ("name", "glob", "expected"),
    [
        ("a.b.bn", "bn", True),
        ("a.b.bn", "b.*", True),
        ("a.b.bn", "a.*", True),
        ("a/b/bn", "b/*", True),
        ("a.b.bn", "n", False),
        ("a.b.bn", "*n", True),
        ("a.b.bn", "b", False),
        ("layer10.bn", "layer1.*", False),
        ("layer1.bn", "layer[12].*", True),
    ],
)
def test_globs_match_any_end_of_a_name(name, glob, expected):
    assert matches(name, glob) is expected
