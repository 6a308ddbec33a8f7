"""Inputs that are not those of training."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.model.capture import Trial, Trials
from bncli.report import Certainty, Severity
from bncli.rulebook.live.causes import diagnosis, input_suspected
from bncli.rulebook.live.inputs import IMAGENET
from bncli.rulebook.live.measures import measures
from tests.rulebook.live import faults
from tests.rulebook.live.faults import network, pictures


def test_the_map_of_the_input_is_named_with_the_means_of_training():
    case = faults.pictures_not_divided_by_255()
    (finding,) = diagnosis(case.capture, case.trials).findings
    assert "divided by 255" in finding.message
    assert "100%" in finding.message
    means = np.mean([batch.mean((0, 2, 3)) for batch in pictures()], axis=0)
    assert finding.evidence["training_means"] == pytest.approx(means.tolist(), rel=1e-4)
    assert finding.evidence["input_means"] == pytest.approx((255 * means).tolist(), rel=1e-9)


def test_a_scale_is_likely_where_nothing_was_tried():
    case = faults.pictures_not_divided_by_255()
    (finding,) = diagnosis(case.capture).findings
    assert (finding.code, finding.certainty) == ("BN805", Certainty.LIKELY)


def test_no_map_closes_it_so_the_domain_is_another():
    case = faults.pictures_not_divided_by_255()
    trials = Trials((Trial("input", "input less its own mean", (), 39.0),))
    (finding,) = diagnosis(case.capture, trials).findings
    assert finding.code == "BN810"
    assert "less its own mean" in finding.detail


def test_the_input_is_suspected_where_the_first_layer_is_off_most():
    def suspected(shown):
        return input_suspected(shown, measures(shown))

    assert suspected(faults.pictures_not_divided_by_255().capture)
    assert suspected(faults.noisy_pictures().capture)
    assert not suspected(network())
    assert not suspected(faults.one_layer_spoilt().capture)
    assert not suspected(faults.statistics_of_another_checkpoint().capture)


def test_a_preparation_that_fits_is_named_without_a_trial():
    """By the means alone: those of training follow from the checkpoint."""
    mean, std = (np.array(each).reshape(3, 1, 1) for each in IMAGENET)
    pixels = [np.clip(batch * 0.1 + mean, 0, 1) for batch in pictures()]
    trained = [(batch - mean) / std for batch in pixels]
    (finding,) = diagnosis(network(pixels, trained, gap=0.9)).findings
    assert (finding.code, finding.certainty) == ("BN805", Certainty.LIKELY)
    assert "less ImageNet's mean" in finding.message


def test_a_map_counts_for_nothing_where_a_third_of_the_input_is_padding():
    case = faults.half_of_each_picture_padded()
    trials = Trials((Trial("input", "input over its own standard deviation", (), 0.21),))
    found = diagnosis(case.capture, trials)
    assert found.cause in ("constant-input", "input-scaled")
    assert len([each for each in found.findings if each.severity is Severity.WARNING]) == 1


def test_the_fix_names_the_map():
    case = faults.pictures_not_divided_by_255()
    (finding,) = diagnosis(case.capture, case.trials).findings
    assert finding.hint == "Feed the model the input divided by 255, as in training."
