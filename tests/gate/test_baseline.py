"""A baseline knows findings again, and nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bncli.gate.baseline import known_removed, update_baseline
from bncli.gate.entries import read_baseline
from bncli.report import Suppressed, Unread
from tests.findings import codes, finding, of_layers, report

LAYERS = ("stem.bn", "layer1.0.bn1", "layer1.0.bn2", "head.1")


@pytest.fixture
def known(folder):
    """Write a report's findings as known, and give back what is new in another one."""

    def known(before, after, path="b.json"):
        (folder / path).unlink(missing_ok=True)
        update_baseline(path, before)
        return known_removed(after, read_baseline(path), path)

    return known


def new(known, before, after) -> list[tuple[str, str]]:
    return codes(known(before, after)[0])


def test_what_is_known_is_out_and_what_is_new_is_not(known):
    before = of_layers(*LAYERS, faulty=["stem.bn"])
    after, gone = known(before, of_layers(*LAYERS, faulty=["stem.bn", "head.1"]))
    assert codes(after) == [("BN001", "head.1")]
    assert [(item.finding.subject, item.by) for item in after.suppressed] == [
        ("stem.bn", "baseline")
    ]
    assert gone == 0
    after, _ = known(before, of_layers(*LAYERS, faulty=["stem.bn"], code="BN002"))
    assert codes(after) == [("BN002", "stem.bn")]


def test_what_was_mended_is_counted_and_comes_back_as_new_after_an_update(known):
    healthy = of_layers(*LAYERS)
    before = of_layers(*LAYERS, faulty=["stem.bn", "head.1"])
    assert known(before, healthy) == (healthy, 2)
    after, gone = known(healthy, before)
    assert (len(after.findings), gone) == (2, 0)


# ------------------------------------------------------------------ places


WRAPPERS = ["", "module.", "_orig_mod.module.", "model.", "state_dict.module.", "state_dict.net.",
            "model_state_dict.", "module/"]  # fmt: skip


@pytest.mark.parametrize("old", WRAPPERS)
@pytest.mark.parametrize("now", WRAPPERS)
def test_a_wrapper_around_the_whole_file_makes_nothing_new(known, old, now):
    before = of_layers(*(old + name for name in LAYERS), faulty=[f"{old}layer1.0.bn1"])
    names = [now + name for name in reversed(LAYERS)]
    after, gone = known(before, of_layers(*names, faulty=[f"{now}layer1.0.bn1"], message="7."))
    assert (codes(after), gone) == ([], 0)
    after, gone = known(before, of_layers(*names, faulty=[f"{now}layer1.0.bn2"]))
    assert (len(after.findings), gone) == (1, 1)


@pytest.mark.parametrize("old", ["stem.0.1", "stem._checkpoint_wrapped_module.0.1",
                                 "stem._fsdp_wrapped_module.0._orig_mod.1"])  # fmt: skip
@pytest.mark.parametrize("now", ["stem.0.1", "stem._orig_mod.0.1"])
def test_a_known_wrapper_inside_of_a_name_makes_nothing_new(known, old, now):
    before = of_layers("head", old, faulty=[old])
    assert new(known, before, of_layers("head", now, faulty=[now])) == []
    assert new(known, before, of_layers("head", now, faulty=["head"])) != []


@pytest.mark.parametrize(
    "layers",
    [
        ("1", "3"),
        ("0.1", "0.3"),
        ("bn1", "layer1.0.bn1"),
        ("block channel 1", "block channel 2"),
        ("block 1 bn", "block 2 bn"),
        ("bn", "module.bn"),
        ("module.bn", "_orig_mod.bn"),
        ("a.bn", "a._orig_mod.bn"),
        ("model.bn", "ema.bn"),
        ("a/b", "a.b"),
        ("module/bn", "module.bn"),
        ("layer1.bn", "layer2.bn"),
        ("bn", "bn.bn"),
        ("x\ny", "x y"),
        ("layer[1]", "layer1"),
        ("channels 0-1", "channels 0-2"),
    ],
)
def test_a_layer_is_known_by_its_name_alone(known, layers):
    """A fault that moves is new, in a file of both layers and in files of one each."""
    one, other = layers
    for names in (layers, (*layers, "model.x"), tuple(f"module.{name}" for name in layers)):
        first, second = names[:2]
        assert (
            new(known, of_layers(*names, faulty=[first]), of_layers(*names, faulty=[first])) == []
        )
        for faulty, moved in ((first, second), (second, first)):
            before = of_layers(*names, faulty=[faulty])
            assert new(known, before, of_layers(*names, faulty=[moved])) == [("BN001", moved)]
            both = of_layers(*names, faulty=[first, second])
            assert new(known, before, both) == [("BN001", moved)]
    assert new(known, of_layers(one, other, faulty=[one]), of_layers(other, faulty=[other])) != []


def test_another_model_in_the_file_changes_the_wrapper_but_not_the_name(known):
    before = of_layers("model.a.bn", "model.b.bn", faulty=["model.a.bn"])
    layers = ("model.a.bn", "model.b.bn", "ema.a.bn", "ema.b.bn", "a.bn")
    after, gone = known(before, of_layers(*layers, faulty=["model.a.bn"]))
    assert (codes(after), gone) == ([], 0)
    for other in ("ema.a.bn", "a.bn"):
        after, gone = known(before, of_layers(*layers, faulty=[other]))
        assert (len(after.findings), gone) == (1, 1)


def test_a_name_that_is_there_is_no_wrapped_one(known):
    """Without wrappers both are `bn`; the one that is called as it was is the one that was."""
    before = of_layers("model.bn", "model.module.bn", faulty=["model.bn"])
    layers = ("bn", "model.bn", "module.bn")
    assert new(known, before, of_layers(*layers, faulty=["model.bn"])) == []
    assert new(known, before, of_layers(*layers, faulty=["bn"])) == [("BN001", "bn")]
    wrapped = ("state_dict.model.bn", "state_dict.model.module.bn")
    assert new(known, before, of_layers(*wrapped, faulty=wrapped[:1])) == []


def test_what_was_chosen_is_no_part_of_a_place(known):
    every = {"net.pt": ("layer1.0.bn", "layer2.0.bn", "bn")}
    part = of_layers("layer1.0.bn", faulty=["layer1.0.bn"], names=every, partial=True)
    for layer in every["net.pt"]:
        after = of_layers(layer, faulty=[layer], names=every, partial=True)
        assert bool(new(known, part, after)) is (layer != "layer1.0.bn")
        whole = of_layers(*every["net.pt"], faulty=[layer])
        assert bool(new(known, part, whole)) is (layer != "layer1.0.bn")


def test_numbers_in_a_subject_are_no_place_where_the_finding_has_one(known):
    one = report(finding(subject="channel 1", places=("channels",)))
    other = report(finding(subject="channels 0, 1 and 2", places=("channels",)))
    assert new(known, one, other) == []
    assert new(known, report(finding(subject="channel 1")), report(finding(subject="channel 2")))


def test_a_finding_for_several_places_is_known_if_all_are(known):
    several = report(finding(subject="3 more", places=("a", "b", "c")))
    alone = report(*(finding(subject=name) for name in "abc"))
    assert new(known, several, alone) == []
    assert new(known, alone, several) == []
    assert new(known, report(*alone.findings[:2]), several) == [("BN001", "3 more")]
    assert known(several, report(alone.findings[0]))[1] == 2


def test_an_entry_knows_one_finding_and_those_that_say_the_same(known):
    said = finding(subject="output", message="a fact.")
    other = finding(subject="output", message="another fact.")
    assert new(known, report(said), report(said, said)) == []
    assert len(new(known, report(said), report(said, other))) == 1
    assert new(known, report(said, other), report(other, said)) == []


# ------------------------------------------------------------------ extents


def spread(*extent, subject="bn", **more):
    layers = more.pop("layers", ("bn", "other"))
    found = finding(subject=subject, extent=extent, path="net.pt", **more)
    return report(found, checked={"net.pt": layers})


@pytest.mark.parametrize(
    ("before", "after", "known_still"),
    [
        ([("NaN", 1, 1)], [("NaN", 1, 1)], True),
        ([("NaN", 1, 1)], [("NaN", 0, 15)], False),
        ([("NaN", 1, 1)], [("NaN", 2, 2)], False),
        ([("NaN", 0, 15)], [("NaN", 1, 1), ("NaN", 7, 9)], True),
        ([("NaN", 0, 3), ("NaN", 4, 9)], [("NaN", 2, 6)], True),
        ([("NaN", 0, 3), ("NaN", 5, 9)], [("NaN", 2, 6)], False),
        ([("NaN", 1, 1)], [("Inf", 1, 1)], False),
        ([], [("NaN", 1, 1)], False),
        ([("NaN", 1, 1)], [], True),
        (["a", "b"], ["b", "a"], True),
        (["a", "b"], ["a", "b", "c"], False),
        (["a", "b", "c"], ["a", "c"], True),
        (["1", "3"], ["2"], False),
        (["11 expected", ("missing", 1, 1)], ["11 expected", ("missing", 1, 9)], False),
        (["11 expected", ("missing", 1, 1)], ["53 expected", ("missing", 1, 43)], False),
    ],
)
def test_an_extent_may_shrink_and_not_grow(known, before, after, known_still):
    assert (not new(known, spread(*before), spread(*after))) is known_still


def test_names_in_an_extent_may_be_wrapped_with_the_file(known):
    layers = ("a.bn", "b.bn", "c.bn")
    wrapped = tuple(f"module.{name}" for name in layers)
    group = {"subject": "group", "places": ("group",)}
    before = spread(*layers[:2], layers=layers, **group)
    assert new(known, before, spread(*wrapped[:2], layers=wrapped, **group)) == []
    assert new(known, before, spread(*wrapped, layers=wrapped, **group)) != []
    both = (*layers, *wrapped)
    assert new(known, before, spread(*layers[:2], layers=both, **group)) == []
    assert new(known, before, spread(*wrapped[:2], layers=both, **group)) != []


def test_the_entry_of_least_extent_is_used_so_that_the_others_stay_for_more(known):
    small, large = finding(extent=(("NaN", 1, 1),)), finding(extent=(("NaN", 0, 9),))
    for order in ([small, large], [large, small]):
        assert new(known, report(*order), report(small, large)) == []
        assert new(known, report(*order), report(large, small)) == []


# ------------------------------------------------------------------ files


def test_an_entry_fits_its_file_and_no_other(known):
    def of(path, *more):
        return of_layers(*LAYERS, faulty=["head.1"], path=path, **dict(more))

    before = of("run1/ck.pt")
    for same in ("run1/ck.pt", "./run1/ck.pt", "run2/../run1/ck.pt", Path("run1/ck.pt").absolute()):
        assert new(known, before, of(same)) == []
    for other in ("run2/ck.pt", "ck.pt", "run1/ck2.pt", "run1"):
        assert len(new(known, before, of(other))) == 1
    two = report(
        *(finding(subject="head.1", path=path) for path in ("run1/ck.pt", "run2/ck.pt")),
        read=("run1/ck.pt", "run2/ck.pt"),
        checked={"run1/ck.pt": LAYERS, "run2/ck.pt": LAYERS},
    )
    assert [item.path for item in known(before, two)[0].findings] == ["run2/ck.pt"]
    assert new(known, two, two) == []


def test_another_working_folder_and_a_checkout_elsewhere(known, folder, monkeypatch):
    (folder / "one" / "ci").mkdir(parents=True)
    (folder / "one" / "models").mkdir()
    before = of_layers(*LAYERS, faulty=["head.1"], path="one/models/a.pt")
    assert new(lambda b, a: known(b, a, "one/ci/b.json"), before, before) == []
    assert json.loads((folder / "one/ci/b.json").read_text("utf-8"))["findings"][0]["file"] == (
        "../models/a.pt"
    )
    monkeypatch.chdir(folder / "one" / "models")
    inside = of_layers(*LAYERS, faulty=["head.1"], path="a.pt")
    baseline = read_baseline("../ci/b.json")
    assert codes(known_removed(inside, baseline, "../ci/b.json")[0]) == []
    (folder / "one").rename(folder / "two")
    monkeypatch.chdir(folder / "two")
    there = of_layers(*LAYERS, faulty=["head.1"], path="models/a.pt")
    assert codes(known_removed(there, baseline, "ci/b.json")[0]) == []
    assert codes(known_removed(inside, baseline, "ci/b.json")[0]) != []


@pytest.mark.skipif(os.name == "nt", reason="links take a privilege there")
def test_links(known, folder):
    (folder / "real").mkdir()
    for name in ("a.pt", "b.pt"):
        (folder / "real" / name).touch()
    (folder / "latest.pt").symlink_to("real/a.pt")
    (folder / "linked").symlink_to("real")

    def of(path):
        return of_layers(*LAYERS, faulty=["head.1"], path=path)

    assert new(known, of("real/a.pt"), of("linked/a.pt")) == []
    assert new(known, of("latest.pt"), of("real/a.pt")) == []
    assert len(new(known, of("latest.pt"), of("real/b.pt"))) == 1
    update_baseline("linked/b.json", of("linked/a.pt"))
    baseline = read_baseline("real/b.json")
    assert codes(known_removed(of("real/a.pt"), baseline, "real/b.json")[0]) == []


def test_what_a_finding_is_about_is_part_of_it(known, folder):
    (folder / "x.npy").touch()

    def about(*inputs):
        return report(finding(subject="output"), read=("x.npy",), about=inputs)

    one = about(("x.npy", ""), ("good.npy", ""))
    assert new(known, one, about(("./x.npy", ""), ("./good.npy", ""))) == []
    for other in (
        (("x.npy", ""), ("y.npy", "")),
        (("x.npy", ""),),
        (("good.npy", ""), ("x.npy", "")),
        (("x.npy", ""), ("good.npy", ""), ("", "evaluation")),
        (("x.npy", "a"), ("good.npy", "")),
        (("x.npy", ""), ("good.npy", "b")),
    ):
        assert len(new(known, one, about(*other))) == 1
        assert len(new(known, about(*other), one)) == 1
        assert new(known, about(*other), about(*other)) == []
    update_baseline("c.json", one)
    update_baseline("c.json", about(("x.npy", ""), ("y.npy", "")))
    assert len(read_baseline("c.json").entries) == 2


def test_an_unread_file_keeps_its_entries_to_itself(known):
    before = of_layers(*LAYERS, faulty=["head.1"], path="a.pt")
    after = of_layers(*LAYERS, faulty=["head.1"], path="b.pt", unread=(Unread("a.pt", "gone."),))
    assert len(known(before, after)[0].findings) == 1


# ------------------------------------------------------------------ what an update keeps


def test_other_files_keep_their_entries_while_they_are_there(folder):
    (folder / "a.pt").touch()
    for name in ("a.pt", "b.pt", "c.pt"):
        update_baseline("b.json", of_layers(*LAYERS, faulty=["head.1"], path=name))
    assert [entry.file for entry in read_baseline("b.json").entries] == ["a.pt", "c.pt"]
    healthy = of_layers(*LAYERS, path="c.pt")
    assert known_removed(healthy, read_baseline("b.json"), "b.json") == (healthy, 1)  # not a's


def test_an_object_keeps_its_entries_in_a_baseline_in_any_folder(folder):
    (folder / "ci").mkdir()
    update_baseline("ci/b.json", of_layers(*LAYERS, faulty=["head.1"], path="<Net>"))
    update_baseline("ci/b.json", of_layers(*LAYERS, faulty=["head.1"], path="c.pt"))
    known = read_baseline("ci/b.json")
    assert [entry.file for entry in known.entries] == ["../c.pt", "<Net>"]
    again = of_layers(*LAYERS, faulty=["head.1"], path="<Net>")
    assert known_removed(again, known, "ci/b.json")[0].findings == ()


def test_what_the_user_did_not_want_to_hear_is_not_gone_and_stays_written(folder):
    update_baseline("b.json", of_layers(*LAYERS, faulty=["stem.bn", "head.1"]))
    old = read_baseline("b.json")
    quiet = Suppressed(finding(subject="head.1", path="net.pt"), "ignore")
    heard = of_layers(*LAYERS, faulty=["stem.bn"], suppressed=(quiet,))
    after, gone = known_removed(heard, old, "b.json")
    assert (codes(after), gone) == ([], 0)
    assert [(item.finding.subject, item.by) for item in after.suppressed] == [
        ("head.1", "ignore"), ("stem.bn", "baseline"),
    ]  # fmt: skip
    update_baseline("b.json", heard)
    assert read_baseline("b.json") == old
    mended = of_layers(*LAYERS, suppressed=(quiet,))
    assert known_removed(mended, old, "b.json")[1] == 1
    update_baseline("b.json", mended)
    assert [entry.place for entry in read_baseline("b.json").entries] == ["head.1"]


def test_an_entry_of_version_1_stays_for_what_the_user_did_not_want_to_hear(folder):
    entries = [
        {"command": "hand-made", "file": "net.pt", "code": "BN001", "prefix": "", "place": place}
        for place in ("stem.bn", "head.1")
    ]
    text = json.dumps({"format_version": 1, "findings": entries})
    (folder / "b.json").write_text(text, "utf-8")
    quiet = Suppressed(finding(subject="head.1", path="net.pt"), "ignore")
    update_baseline("b.json", of_layers(*LAYERS, faulty=["stem.bn"], suppressed=(quiet,)))
    written = read_baseline("b.json")
    assert [entry.place for entry in written.entries] == ["stem.bn"]
    assert [entry.place for entry in written.former] == ["head.1"]


def test_what_was_not_looked_at_is_not_gone_and_stays_written(folder):
    update_baseline("b.json", of_layers(*LAYERS, faulty=["stem.bn", "head.1"]))
    old = read_baseline("b.json")
    every = {"net.pt": LAYERS}
    part = of_layers("stem.bn", faulty=["stem.bn"], partial=True, names=every)
    after, gone = known_removed(part, old, "b.json")
    assert (codes(after), gone) == ([], 0)
    update_baseline("b.json", part)
    assert read_baseline("b.json") == old
    update_baseline("b.json", of_layers("stem.bn", partial=True, names=every))
    assert [entry.place for entry in read_baseline("b.json").entries] == ["head.1"]
    update_baseline("b.json", of_layers("stem.bn", faulty=["stem.bn"]))
    assert [entry.place for entry in read_baseline("b.json").entries] == ["stem.bn"]


def test_other_commands_keep_their_entries(folder):
    one = report(finding(), command="compute")
    other = report(finding("BN002"), command="inspect-checkpoint")
    update_baseline("b.json", one)
    update_baseline("b.json", other)
    for given_report in (one, other):
        after, gone = known_removed(given_report, read_baseline("b.json"), "b.json")
        assert (codes(after), gone) == ([], 0)
