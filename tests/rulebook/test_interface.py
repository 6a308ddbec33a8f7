"""Every rule: a code that stays, an input that it finds, and none that it blames wrongly."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from bncli.cli import main
from bncli.report import Certainty, Severity
from bncli.rulebook import FAMILIES, RULES, registry
from bncli.rulebook.interface import Rule, examples, name_channels, percent, span, times
from bncli.rulebook.live import causes
from tests.rulebook.exports import graph
from tests.rulebook.faults import FAULTS
from tests.rulebook.gathered import PLANTED as IN_MANY_FILES
from tests.rulebook.layers import beyond_its_rule, f4, ill_said
from tests.rulebook.live.faults import PLANTED as IN_CAPTURES
from tests.rulebook.live.recalibrations import PLANTED as IN_RECALIBRATIONS
from tests.rulebook.versions import PLANTED as IN_TWO_FILES


def normal(*shape, seed=0, mean=0.0, std=1.0):
    return np.random.default_rng(seed).normal(mean, std, shape).astype(np.float32)


def plant_not_finite(save):
    x = normal(16, 3)
    x[3, 1] = np.nan
    return save("x.npy", x), "channel 1"


def plant_ill_conditioned(save):
    return save("x.npy", np.stack([normal(64), normal(64, mean=5000.0)], axis=1)), "channel 1"


def plant_below_eps(save):
    return save("x.npy", normal(64, 2) * np.float32([1.0, 1e-3])), "channel 1"


def plant_overflow(save):
    x = np.float64([[1e25, 1.0]] * 8 + [[-1e25, 2.0]] * 8)
    return save("x.npy", x.astype(np.float32)), "channel 0"


def plant_fresh_statistics(save):
    return save("x.npy", normal(16, 3)), "running statistics", "--eval"


def plant_not_positive(save):
    flags = "--running-mean", save("m.npy", np.zeros(3)), "--running-var"
    var = save("v.npy", np.array([1.0, 1.0, -0.5]))
    return save("x.npy", normal(16, 3)), "channel 2", "--eval", *flags, var


def plant_momentum(save):
    return save("x.npy", normal(16, 3)), "momentum", "--momentum", "1.5"


def plant_training_mode(save):
    graph("net.onnx", training=True)
    return "net.onnx", "bn1"


def plant_few_values(save):
    return save("x.npy", normal(7, 3)), "every channel"


def plant_constant(save):
    return save("x.npy", normal(16, 2) * np.float32([0.0, 1.0])), "channel 0"


def plant_inputs_differ(save):
    save("a.npy", normal(64, 3))
    return save("b.npy", normal(64, 3, mean=5.0)), "inputs", "a.npy"


def plant_off_stored(save):
    save("mean.npy", np.zeros(3))
    save("var.npy", np.float32([1, 100, 1]))
    flags = "--eval", "--running-mean", "mean.npy", "--running-var", "var.npy"
    return save("x.npy", normal(64, 3)), "channel 1", *flags


def plant_differs(save):
    flags = "--against", "torch", "--rtol", "0", "--atol", "1e-12"
    return save("x.npy", normal(16, 3)), "output", *flags


def plant_lost_digits(save):
    x = normal(64, 2) + np.float32([0.0, 3e5])
    return save("x.npy", x), "output", "--against", "torch"


def plant_state_not_finite(save):
    weight = save("w.npy", np.array([1.0, np.nan, 1.0]))
    return save("x.npy", normal(16, 3)), "weight", "--weight", weight


def plant_gradient_not_finite(save):
    g = normal(16, 3, seed=1)
    g[5, 2] = np.inf
    flags = "--backward", "--grad-output", save("g.npy", g)
    return save("x.npy", normal(16, 3)), "grad_output", *flags


def plant_ambiguous_axes(save):
    return save("x.npy", normal(16, 6, 6)), "input"


def plant_missing_parts(save):
    for k in range(3):
        save(f"x{k}.npy", normal(16, 3))
    main(["compute", "x*.npy", "--shard", "1/3", "--save-stats", "part1.npz", "--quiet"])
    return "part1.npz", "part1.npz", "--allow-missing-parts"


def plant_inverted(save):
    return save("x.npy", normal(800, 3)), "momentum", "--momentum", "0.9", "--batch-size", "16"


def plant_initial(save):
    return save("x.npy", normal(128, 3)), "pytorch", "--batch-size", "16"


def plant_unshuffled(save):
    x = normal(800, 3)
    x[:400, 1] += 2
    return save("x.npy", x), "channel 1", "--batch-size", "16"


def plant_one_value(save):
    return save("x.npy", normal(801, 3)), "batches", "--batch-size", "16"


def plant_stalled(save):
    flags = "--batch-size", "16", "--epochs", "20", "--momentum", "0.01"
    x = normal(800, 1, mean=3.0)
    return save("x.npy", x), "pytorch channel 0", *flags, "--buffer-dtype", "bfloat16"


def plant_impossible(save):
    var = save("v.npy", np.float32([1.0, -1e9, 1.0]))
    flags = "--running-mean", save("m.npy", np.zeros(3)), "--running-var", var
    return save("x.npy", normal(800, 3)), "pytorch", *flags, "--batch-size", "16"


def plant_not_compared(save):
    save("b.npz", x=normal(4, 3), y=normal(4, 3, seed=1))
    return save("a.npz", x=normal(4, 3), z=normal(4, 3)), "y", "b.npz"


def plant_made_otherwise(save):
    x = normal(64, 3)
    save("y.npy", ((x - x.mean(0)) / np.sqrt(x.var(0) + 0.01)).astype(np.float32))
    return save("x.npy", x), "OUTPUT", "y.npy"


def plant_unexplained(save):
    x = normal(64, 3)
    save("y.npy", np.tanh(x))
    return save("x.npy", x), "OUTPUT", "y.npy"


def plant_nothing_updated(save):
    flags = []
    for name, value in (("mean", 0), ("var", 1)):
        save(f"{name}.npy", np.full(3, value, np.float32))
        for side in ("before", "after"):
            flags += [f"--running-{name}-{side}", f"{name}.npy"]
    return save("x.npy", normal(64, 3) + 1), "the update", *flags


def plant_overwritten(save):
    Path("mine.py").write_text(
        "import torch\n\n\nclass Mine(torch.nn.BatchNorm1d):\n"
        "    def forward(self, x):\n"
        "        y = super().forward(x.clone())\n"
        "        x.data.copy_(y.data)\n"
        "        return y\n",
        encoding="utf-8",
    )
    return save("x.npy", normal(16, 3)), "x", "--against", "mine.py:Mine"


PLANTED = {
    "BN001": plant_not_finite,
    "BN002": plant_ill_conditioned,
    "BN003": plant_below_eps,
    "BN004": plant_overflow,
    "BN005": plant_fresh_statistics,
    "BN006": plant_not_positive,
    "BN007": plant_momentum,
    "BN008": plant_few_values,
    "BN009": plant_constant,
    "BN010": plant_inputs_differ,
    "BN011": plant_state_not_finite,
    "BN012": plant_gradient_not_finite,
    "BN020": plant_ambiguous_axes,
    "BN108": plant_training_mode,
    "BN701": plant_inverted,
    "BN013": plant_off_stored,
    "BN702": plant_initial,
    "BN703": plant_unshuffled,
    "BN704": plant_one_value,
    "BN705": plant_stalled,
    "BN706": plant_impossible,
    "BN901": plant_differs,
    "BN902": plant_lost_digits,
    "BN903": plant_not_compared,
    "BN904": plant_made_otherwise,
    "BN905": plant_unexplained,
    "BN906": plant_nothing_updated,
    "BN907": plant_missing_parts,
    "BN909": plant_overwritten,
}
"""By code: an input that has the fault, the subject of its finding, and more arguments."""

IN_RANKS = {"BN908"}
"""What is planted in processes of their own, in tests/commands/capture/test_by_ranks.py."""

COMMAND_OF = {
    "BN012": "trace",
    "BN020": "compare-norms",
    "BN108": "inspect-checkpoint",
    "BN903": "diff",
    "BN904": "identify",
    "BN905": "identify",
    "BN906": "identify",
} | {code: "simulate-ema" for code in PLANTED if code.startswith("BN7")}
"""The command that finds it, where that is not compute."""


def run_planted(run, save, rule):
    """The result of the planted input, and the subject that is to be found."""
    path, subject, *more = PLANTED[rule.code](save)
    command = COMMAND_OF.get(rule.code, "compute")
    return run(command, path, *more, "-f", "json"), subject


every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
every_planted_rule = pytest.mark.parametrize(
    "rule", [rule for rule in RULES if rule.code in PLANTED], ids=lambda rule: rule.code
)


def codes_of(sentence: str) -> set[str]:
    """The codes that a module's first line names: BN4xx, BN02x, BN203 to BN205, BN407 and BN408."""
    codes = set()
    for first, last in re.findall(r"BN(\d[\dx]{2})(?: to BN(\d{3}))?", sentence):
        numbers = range(int(first.replace("x", "0")), int(last or first.replace("x", "9")) + 1)
        codes |= {f"BN{number:03d}" for number in numbers}
    return codes


def forgotten(modules, listed, planted) -> Iterator[str]:
    """What a rule lacks, in words: `modules` by file, `listed` those of the lists, `planted`."""
    files: dict[Rule, list[str]] = {}
    for file, module in modules.items():
        own = [value for value in vars(module).values() if isinstance(value, Rule)]
        for rule in own:
            files.setdefault(rule, []).append(file)
        if own and module not in listed:
            yield f"{file} is in no MODULES, neither of checkpoint.py nor of registry.py"
        lists = (getattr(module, each, ()) for each in ("LAYER_CHECKS", "FILE_CHECKS", "CHECKS"))
        run = [check for each in lists for check in each]
        for name, value in vars(module).items():
            made_here = getattr(value, "__module__", "") == module.__name__
            named = name in causes.causes.__code__.co_names
            if name.startswith("check_") and made_here and not named and value not in run:
                yield f"{name} of {file} is in none of its lists of checks"
    seen: dict[str, str] = {}
    for rule, (file, *others) in files.items():  # others import it
        if rule.code in seen:
            yield f"{rule.code} is in {seen[rule.code]} and in {file}"
        seen[rule.code] = file
        if rule.code[:3] not in FAMILIES:
            yield f"{rule.code} of {file} is in no family of bncli/rulebook/__init__.py"
        told = (codes_of(modules[each].__doc__.partition("\n")[0]) for each in (file, *others))
        if rule.code not in set().union(*told):
            yield f"{rule.code} is not among the codes in the first line of {file}"
        for text in ("summary", "hint", "symptom", "arithmetic", "certainty", "lookalike"):
            if not getattr(rule, text):
                yield f"{rule.code} of {file} has no {text}"
        if rule.code not in planted:
            yield f"{rule.code} is planted neither in PLANTED nor in tests/rulebook/faults.py"


def test_no_piece_of_a_rule_is_forgotten(repository):
    folder = repository / "bncli/rulebook"
    modules = {
        path.name: import_module(f"bncli.rulebook.{path.stem}")
        for path in sorted(folder.glob("*.py"))
        if path.stem not in ("__init__", "registry")
    } | {
        f"live/{path.name}": import_module(f"bncli.rulebook.live.{path.stem}")
        for path in sorted((folder / "live").glob("*.py"))
        if path.stem != "__init__"
    }
    planted = {
        *PLANTED,
        *(fault.code for fault in FAULTS.values()),
        *IN_CAPTURES,
        *IN_RECALIBRATIONS,
        *IN_TWO_FILES,
        *IN_MANY_FILES,
        *IN_RANKS,
    }
    assert not list(forgotten(modules, registry.MODULES, planted))
    assert planted == {rule.code for rule in RULES}


def test_each_forgotten_piece_is_named(monkeypatch):
    rest = {family: about for family, about in FAMILIES.items() if family != "BN8"}
    monkeypatch.setattr(f"{__name__}.FAMILIES", rest)  # put back, it would come last

    def rule(code, hint="Fix it."):
        return Rule(code, "a-name", Severity.INFO, "It is.", hint, "s", "a", "c", "l")

    fine, other = ModuleType("fine", "BN41x, BN420: fine."), ModuleType("other", "BN4xx to BN899.")
    fine.A, fine.B, fine.C, fine.D = map(rule, ("BN410", "BN419", "BN420", "BN421"))
    other.A, other.B, other.BORROWED = rule("BN410", hint=""), rule("BN899"), fine.B
    exec("def check_this(layer): pass\ndef check_that(file): pass", vars(other))
    other.FILE_CHECKS = (other.check_that,)
    planted = {"BN410", "BN419", "BN420", "BN899"}
    assert list(forgotten({"fine.py": fine, "other.py": other}, (fine,), planted)) == [
        "other.py is in no MODULES, neither of checkpoint.py nor of registry.py",
        "check_this of other.py is in none of its lists of checks",
        "BN421 is not among the codes in the first line of fine.py",
        "BN421 is planted neither in PLANTED nor in tests/rulebook/faults.py",
        "BN410 is in fine.py and in other.py",
        "BN410 of other.py has no hint",
        "BN899 of other.py is in no family of bncli/rulebook/__init__.py",
    ]


def test_names_are_unique_and_every_family_has_a_rule():
    codes = [rule.code for rule in RULES]
    assert codes == sorted(codes)
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert {code[:3] for code in codes} == set(FAMILIES)


def test_codes_are_a_promise():
    assert {rule.code: (rule.name, rule.severity.value) for rule in RULES}.items() >= {
        "BN001": ("not-finite", "error"),
        "BN002": ("ill-conditioned", "warning"),
        "BN003": ("variance-below-eps", "warning"),
        "BN004": ("overflow", "warning"),
        "BN005": ("fresh-running-statistics", "warning"),
        "BN006": ("running-variance-not-positive", "error"),
        "BN007": ("momentum-out-of-range", "warning"),
        "BN008": ("few-values", "info"),
        "BN009": ("constant", "info"),
        "BN010": ("inputs-differ", "warning"),
        "BN013": ("off-stored-statistics", "warning"),
        "BN020": ("ambiguous-axes", "warning"),
        "BN701": ("momentum-inverted", "warning"),
        "BN702": ("initial-value-weighs", "warning"),
        "BN703": ("batches-not-shuffled", "warning"),
        "BN704": ("one-value-batch", "error"),
        "BN705": ("half-precision-stall", "warning"),
        "BN706": ("running-variance-impossible", "error"),
        "BN101": ("never-estimated", "error"),
        "BN102": ("never-estimated-anywhere", "warning"),
        "BN103": ("fresh", "info"),
        "BN104": ("counted-but-unchanged", "warning"),
        "BN105": ("initial-value-remains", "warning"),
        "BN106": ("missing-statistics", "error"),
        "BN201": ("nan-in-checkpoint", "error"),
        "BN202": ("inf-in-checkpoint", "error"),
        "BN203": ("variance-not-positive", "error"),
        "BN204": ("negative-variance", "warning"),
        "BN205": ("mean-and-variance-swapped", "error"),
        "BN206": ("shapes-disagree", "error"),
        "BN208": ("never-filled", "error"),
        "BN209": ("uninitialised-memory", "error"),
        "BN210": ("one-tensor-twice", "error"),
        "BN303": ("counter-multiple", "warning"),
        "BN305": ("counter-too-small", "info"),
        "BN401": ("running-variance-below-eps", "warning"),
        "BN402": ("dead-channel", "info"),
        "BN407": ("network-collapsed", "warning"),
        "BN408": ("layer-amplifies", "warning"),
        "BN501": ("half-precision-statistics", "warning"),
        "BN502": ("lost-to-precision", "warning"),
        "BN505": ("wholly-half", "info"),
        "BN602": ("copy-never-updated", "error"),
        "BN901": ("differs", "error"),
    }.items()


@every_rule
def test_a_rule_is_well_formed(rule):
    assert re.fullmatch(r"BN\d{3}", rule.code)
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", rule.name)
    texts = (rule.symptom, rule.arithmetic, rule.certainty, rule.lookalike)
    for sentence in (rule.hint, *texts):
        assert sentence.endswith("."), sentence
    for sentence in (rule.summary, rule.hint, *texts):
        assert "\n" not in sentence
        assert "  " not in sentence
        assert sentence.isascii()
        assert not re.search(r"\b(gamma|beta|sigma|epsilon)\b", sentence)
    assert isinstance(rule.severity, Severity)
    for thread in rule.seen:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", thread)
    others = set(re.findall(r"BN\d{3}", " ".join(texts)))
    assert others <= {other.code for other in RULES} - {rule.code}


SURE = {
    Certainty.CERTAIN: "Certain",
    Certainty.LIKELY: "Likely",
    Certainty.ASSUMED: "Depends on",
}
"""How the text on a rule's certainty begins, by how sure its findings are."""


@every_rule
def test_a_rule_is_told_in_a_claim_a_fix_and_how_sure_it_is(rule):
    assert not rule.summary.endswith(".")
    assert len(rule.summary) <= 90
    assert ": " not in rule.summary  # the number of places follows one
    assert not re.match(r"[A-Z][a-z]+ ", rule.summary)  # a line that follows "error[BN201]"
    assert len(re.split(r"(?<=[.!?]) (?=[A-Z])", rule.hint)) <= 2
    assert re.match(rf"{SURE[rule.sure]}\b", rule.certainty)
    for less in rule.less_sure:
        assert SURE[less].lower().split()[0].rstrip("s") in rule.certainty.lower(), less


def test_a_heading_says_all_that_findings_of_a_rule_may_be():
    said = {rule.code: (rule.how_bad, rule.how_sure) for rule in RULES}
    assert said["BN201"] == ("error", "certain")
    assert said["BN703"] == ("warning or note", "certain or likely")
    assert said["BN401"] == ("warning", "certain, or depends on an assumption")
    assert said["BN105"] == ("warning", "certain, likely, or depends on an assumption")


@every_rule
def test_a_finding_carries_its_rule(rule):
    finding = rule.finding("here", "a fact", {"number": 3})
    assert (finding.code, finding.severity, finding.hint) == (rule.code, rule.severity, rule.hint)
    assert (finding.subject, finding.message, finding.detail) == ("here", "a fact", "")
    assert (finding.claim, finding.certainty) == (rule.summary, rule.sure)
    assert finding.evidence == {"number": 3}


@pytest.mark.parametrize("key", ["eps_assumed", "momentum_assumed"])
def test_what_rests_on_an_assumed_value_says_so(key):
    (rule,) = (rule for rule in RULES if rule.code == "BN201")
    assert rule.finding("here", "a fact", {key: True}).certainty == Certainty.ASSUMED
    assert rule.finding("here", "a fact", {key: False}).certainty == rule.sure
    likely = rule.finding("here", "a fact", {key: True}, sure=Certainty.LIKELY)
    assert likely.certainty == Certainty.LIKELY


@every_planted_rule
def test_the_planted_fault_is_found(run, save, rule):
    result, subject = run_planted(run, save, rule)
    found = {
        (item["code"], item["severity"], item["subject"]) for item in result.report["findings"]
    }
    assert (rule.code, rule.severity.value, subject) in found
    assert not list(beyond_its_rule(result.report["findings"]))
    errors = any(severity == "error" for _, severity, _ in found)
    assert result.code == (1 if errors else 0)
    for item in result.report["findings"]:
        assert not list(ill_said(item))
        assert item["evidence"] or item["code"] == "BN005", item
        if item["code"] not in ("BN005", "BN108", "BN903"):  # which have nothing to count
            assert any(c.isdigit() for c in item["message"])
    order = [(-Severity(item["severity"]).rank, item["code"]) for item in result.report["findings"]]
    assert order == sorted(order)


@every_planted_rule
def test_the_planted_fault_alone_is_found(run, save, rule):
    """No planted input is blamed for what it has not, but for these consequences."""
    result, _ = run_planted(run, save, rule)
    found = {item["code"] for item in result.report["findings"]}
    consequences = {"BN902": {"BN002"}}
    assert found - consequences.get(rule.code, set()) == {rule.code}


@pytest.mark.parametrize("shape", [(8, 3), (64, 3, 5), (8, 3, 4, 4), (2, 3, 4, 4, 4)])
@pytest.mark.parametrize("mean", [0.0, 10.0, -300.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_healthy_input_is_not_blamed(run, save, shape, mean, dtype):
    x = torch.from_numpy(normal(*shape, mean=mean, std=4.0)).to(dtype)
    result = run("compute", save("x.pt", x), "-f", "json", "--against", "torch")
    assert result.report["findings"] == []
    assert result.code == 0


def test_healthy_norms_are_not_blamed(run, save):
    for shape, flags in (
        ((16, 6, 5), ()),
        ((16, 6, 6), ("--channel-axis", "1")),
        ((16, 6, 6), ("--channel-axis", "-1")),
        ((16, 6), ()),
        ((16, 4, 4, 4), ()),
    ):
        x = save("x.npy", normal(*shape))
        result = run("compare-norms", x, *flags, "-f", "json", "--against", "torch")
        assert (result.code, result.report["findings"]) == (0, [])


def test_the_borders(run, save):
    """On either side of each number that a rule is made of."""

    def codes(x, *flags):
        result = run("compute", save("x.npy", x), *flags, "-f", "json")
        return {item["code"] for item in result.report["findings"]}

    signs = np.array([[1.0], [-1.0]] * 8)
    assert codes(signs + 999.0) == set()  # float64: never ill-conditioned
    assert codes((signs + 1000.0).astype(np.float32)) == set()
    assert codes((signs + 1001.0).astype(np.float32)) == {"BN002"}
    assert codes(signs * 0.5, "--eps", "0.25") == set()
    assert codes(signs * 0.5, "--eps", "0.2500001") == {"BN003"}
    assert codes(signs, "--momentum", "0") == set()
    assert codes(signs, "--momentum", "1") == set()
    assert codes(signs, "--momentum", "none") == set()
    assert codes(signs, "--momentum=-0.01") == {"BN007"}


@pytest.mark.parametrize(
    ("channels", "text"),
    [
        ([3], "channel 3"),
        ([0, 2], "channels 0 and 2"),
        ([0, 1, 2, 9], "channels 0, 1, 2 and 9"),
        ([0, 1, 2, 3, 4], "channels 0, 1, 2 and 2 more"),
        (list(range(64)), "channels 0, 1, 2 and 61 more"),
    ],
)
def test_channels_are_listed_as_a_person_would(channels, text):
    assert name_channels(channels) == text


def test_names_and_ratios_are_said_as_a_person_would():
    assert examples(["a", "b", "c"]) == "a, b and c"
    assert examples(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
    assert examples(["a", "b", "c"], 2) == "a, b and 1 more"
    assert examples(["4"]) == "'4'"
    assert examples(["70.1", "bn.1"]) == "'70.1' and bn.1"
    assert times(12.345) == "12.3 times"
    assert times(np.inf) == "infinitely many times"


def test_one_unshuffled_channel_is_seen(run, save):
    """Sorted by class in channel 1 alone; and shuffled ones, of many channels, are left alone."""
    a, b = normal(64, 3), normal(64, 3)
    rng = np.random.default_rng(3)
    rng.shuffle(a)
    save("a.npy", a)
    save("b.npy", b[::-1] + np.float32([0.0, 4.0, 0.0]))
    (finding,) = [
        item
        for item in run("compute", "a.npy", "b.npy", "-f", "json").report["findings"]
        if item["code"] == "BN010"
    ]
    assert finding["evidence"]["channels"] == [1]
    save("c.npy", rng.normal(size=(32, 500)))
    save("d.npy", rng.normal(size=(32, 500)))
    assert run("compute", "c.npy", "d.npy", "-f", "json").report["findings"] == []


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0.5905, "59%"),
        (0.002, "0.2%"),
        (0.998, "99.8%"),
        (1, "100%"),
        (-0.5, "-50%"),
        (-1, "-100%"),
    ],
)
def test_percent(share, said):
    assert percent(share) == said


def test_span():
    assert span(f4(0.5)) == "0.5"
    assert span(f4(2, 0.5, 1)) == "0.5 to 2"
    assert span(f4(1.00001, 1.00002)) == "1"


LOADED = """
import sys
from bncli.cli import main
main([*sys.argv[1:], "-q"])
rooms = ("bncli.rulebook.", "bncli.running_stats.")
print(*(name for name in sys.modules if name.startswith(rooms)))
"""


def test_a_call_imports_the_rules_that_it_judges_by(run_process, save):
    def loaded(*arguments):
        names = run_process(*arguments, python=["-c", LOADED]).stdout.split()
        return {name.removeprefix("bncli.") for name in names}

    of_batches = {f"rulebook.{name}" for name in ("interface", "batch", "batch_rules")}
    assert loaded("compute", save("x.npy", normal(16, 3))) == of_batches | {"running_stats.update"}
    layer = {"bn.running_mean": normal(4), "bn.running_var": normal(4) ** 2 + 1}
    of_files = loaded("inspect-checkpoint", save("bn.npz", **layer))
    assert "rulebook.variances" in of_files
    assert not of_files & (of_batches | {"rulebook.registry", "rulebook.comparison"}) - {
        "rulebook.interface"
    }
    assert not any(name.startswith("running_stats.") for name in of_files)
