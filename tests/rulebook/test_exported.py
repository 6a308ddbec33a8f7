"""A graph that normalises with the batch it is given: of ONNX and of torch.export, written here."""

import pytest
import torch

from tests.rulebook.exports import graph


@pytest.mark.parametrize("training", [False, True])
def test_a_graph_of_onnx(run, folder, training):
    graph("net.onnx", training)
    result = run("inspect-checkpoint", "net.onnx", "-f", "json")
    found = [(each["code"], each["subject"]) for each in result.report["findings"]]
    assert found == ([("BN108", "bn1")] if training else [])
    assert result.code == 0


@pytest.mark.parametrize("training", [False, True])
def test_a_program_of_torch_export(run, folder, training):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv1d(2, 4, 3), torch.nn.BatchNorm1d(4))
    for _ in range(200):
        model(torch.randn(8, 2, 9))
    program = torch.export.export(model.train(training), (torch.randn(8, 2, 9),))
    torch.export.save(program, "net.pt2")
    result = run("inspect-checkpoint", "net.pt2", "-f", "json")
    codes = {each["code"] for each in result.report["findings"]}
    assert ("BN108" in codes) is training


def test_a_module_saved_in_training_mode_is_not_one(run, folder):
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(4))
    model(torch.randn(8, 4))
    torch.save(model.train(), "net.pt")
    result = run("inspect-checkpoint", "net.pt", "-f", "json")
    assert "BN108" not in {each["code"] for each in result.report["findings"]}
