"""A layer as it comes from a file, and what is said of it, or of a whole file."""

from __future__ import annotations

import numpy as np
import torch

from bncli.model import BatchNormState
from bncli.report import Certainty, Severity
from bncli.rulebook import RULES
from bncli.rulebook.checkpoint import layer_findings
from bncli.rulebook.layers import Layer

FLOOR = 5.605193857299268e-45
"""Where PyTorch's float32 variance of a dead channel stops at a momentum of 0.1."""


def layer(name="bn", channels=4, *, momentum=0.1, counter=100, dtype="float32", **vectors):
    """A layer as it comes from a file."""
    rng = np.random.default_rng(sum(map(ord, name)))
    values = {
        "running_mean": rng.normal(size=channels).astype(np.float32),
        "running_var": rng.uniform(0.5, 2, channels).astype(np.float32),
        "weight": rng.normal(size=channels).astype(np.float32),
        "bias": rng.normal(size=channels).astype(np.float32),
    } | vectors
    state = BatchNormState(name, **values, num_batches_tracked=counter, dtype=dtype)
    shapes = {leaf: value.shape for leaf, value in values.items()} | {"num_batches_tracked": ()}
    return Layer(state, shapes, dict.fromkeys(values, dtype), momentum=momentum)


def codes(made):
    """The codes of what a layer shows."""
    return {finding.code for finding in layer_findings(made)}


def only(made, code):
    """The one finding of that code."""
    (finding,) = [finding for finding in layer_findings(made) if finding.code == code]
    return finding


MOST_WORDS = 120
"""The most characters of a finding's message, without the names and paths in it."""


def ill_said(finding, *names):
    """What is wrong with the words of a finding, a dict as in JSON; `names` may be long."""
    message = finding["message"]
    rest = message
    for name in (*names, finding["subject"]):
        rest = rest.replace(name, "")
    if len(rest) > MOST_WORDS:
        yield f"{len(rest)} characters: {message}"
    if message.endswith(".") or message != message.strip():
        yield f"ends like a sentence: {message}"
    for text in (finding["detail"], finding["hint"]):
        if text and not text.endswith("."):
            yield f"not a sentence: {text}"
    if any("\n" in text or "  " in text for text in (message, finding["detail"])):
        yield f"more than a line: {message} {finding['detail']}"
    first = (finding["detail"].split() or [""])[0].rstrip(",:")
    if (
        first[:1].islower()
        and not set(first) & set("_.:/0123456789")
        and first not in ("weight", "bias")
    ):
        yield f"begins without a capital: {finding['detail']}"


def beyond_its_rule(findings):
    """Findings that are milder or less sure than their rules say; each is a dict as in JSON."""
    rules = {rule.code: rule for rule in RULES}
    for item in findings:
        rule = rules[item["code"]]
        if Certainty(item["certainty"]) not in (rule.sure, *rule.less_sure):
            yield f"{item['code']} is {item['certainty']}"
        if Severity(item["severity"]) not in (rule.severity, rule.milder):
            yield f"{item['code']} is a {item['severity']}"


def f4(*numbers):
    return np.array(numbers, np.float32)


def bits(*numbers):
    return np.array(numbers, np.uint32).view(np.float32)


def found(run, saved, *flags, code=None):
    """The findings of inspect-checkpoint, of one code or of all."""
    torch.save(saved, "net.pt")
    result = run("inspect-checkpoint", "net.pt", *flags, "-f", "json")
    assert result.code in (0, 1), result.stderr
    findings = result.report["findings"]
    return [f for f in findings if code is None or f["code"] == code]
