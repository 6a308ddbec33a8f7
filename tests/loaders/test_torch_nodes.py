import pytest

from bncli.loaders.torch_nodes import inputs_of, listed, nodes_of, signature_of, table, tensor_name


def argument(name, **value):
    return {"name": name, "arg": value}


NODE = {
    "name": "bn",
    "target": "torch.ops.aten.batch_norm.default",
    "inputs": [
        argument("input", as_tensor={"name": "x"}),
        argument("weight", as_optional_tensor={"as_tensor": {"name": "w"}}),
        argument("eps", as_float=0.5),
        argument("momentum", as_int=1),
        argument("training", as_bool=False),
        argument("", as_tensors=[{"name": "a"}, {"as_none": True}]),
    ],
    "outputs": [{"as_tensor": {"name": "y"}}, 3],
    "metadata": {"nn_module_stack": "0,,net.Net;1,bn,torch.nn.modules.batchnorm.BatchNorm2d"},
}


def test_a_node_has_its_operator_its_arguments_and_its_class():
    (node,) = nodes_of({"nodes": [NODE, {"target": 3}, None]})
    assert (node.operator, node.outputs, node.label) == ("batch_norm", ("y",), "bn")
    assert node.class_name == "BatchNorm2d"
    assert (node.tensor("input"), node.tensor("bias", "weight"), node.tensor("eps")) == (
        "x", "w", "",
    )  # fmt: skip
    assert (node.number(("eps",)), node.number(("none", "momentum"))) == (0.5, 1.0)
    assert node.number(("training",)) is None
    assert (node.flag("training"), node.flag("eps")) == (False, None)
    assert list(inputs_of(node.args)) == ["x", "w", "a"]


@pytest.mark.parametrize("number", [float("inf"), float("nan"), True, "1"])
def test_what_is_no_number_is_none(number):
    node = NODE | {"inputs": [argument("eps", as_float=number)]}
    (made,) = nodes_of({"nodes": [node]})
    assert made.number(("eps",)) is None


def test_the_signature_names_what_the_inputs_are():
    specs = [
        {"parameter": {"arg": {"name": "p"}, "parameter_name": "bn.weight"}},
        {"buffer": {"arg": {"name": "b"}, "buffer_name": "bn.running_var"}},
        {"user_input": {"arg": {"as_tensor": {"name": "x"}}}},
        {"buffer": {"arg": {"name": 3}, "buffer_name": "no"}},
        None,
    ]
    assert list(signature_of({"input_specs": specs})) == [
        ("p", "bn.weight"),
        ("b", "bn.running_var"),
    ]


@pytest.mark.parametrize("value", [None, 3, [], {}, {"as_tensor": []}, {"as_tensor": {"name": 1}}])
def test_what_is_no_tensor_has_no_name(value):
    assert tensor_name(value) == ""


def test_json_of_another_kind_is_empty():
    assert (table([1]), listed({"a": 1})) == ({}, [])
