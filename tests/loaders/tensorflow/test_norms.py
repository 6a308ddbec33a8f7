"""Uses of BatchNorm in graphs, found through variables, functions and choices."""

from pathlib import Path

import pytest

from bncli.errors import UnsupportedFileError
from bncli.loaders.interface import open_source
from bncli.loaders.tensorflow.graph import Graph, Node, Program, program_of
from bncli.loaders.tensorflow.norms import Norm, Place, found_in

from .written import FOUR, function, meta_graph, node, reads, saved_model, saved_objects

VARIABLES = [f"bn/{leaf}" for leaf in FOUR]
READ = [f"{name}/read" for name in VARIABLES]
PLACES = dict(
    zip(("weight", "bias", "running_mean", "running_var"), map(Place, VARIABLES), strict=True)
)
SAID = {"epsilon": 2e-3, "is_training": False, "data_format": "NHWC"}
ARGUMENTS = ["x", "g", "b", "m", "v"]


def fused(name="bn/norm", inputs=("x", *READ), op="FusedBatchNormV3", **changed):
    return node(name, op, inputs, **SAID | changed)


def found(tmp_path, nodes, functions=(), objects=b""):
    (tmp_path / "graph").write_bytes(saved_model(meta_graph(nodes, functions, objects)))
    with open_source(tmp_path / "graph") as source:
        return found_in(program_of(source, saved_model=True))


def only(tmp_path, *given):
    (norm,), _ = found(tmp_path, *given)
    return norm


def test_an_operation_tells_its_tensors_eps_and_axis(tmp_path):
    norm = only(tmp_path, [*reads(*VARIABLES), fused()])
    assert norm == Norm("FusedBatchNormV3", 2e-3, channel_axis=3, **PLACES)


@pytest.mark.parametrize(
    ("layout", "axis"), [("NHWC", 3), ("NCHW", 1), ("NDHWC", 4), ("NCDHW", 1), ("odd", None)]
)
def test_the_channel_axis_is_that_of_the_layout(tmp_path, layout, axis):
    assert only(tmp_path, [*reads(*VARIABLES), fused(data_format=layout)]).channel_axis == axis


def test_what_a_node_leaves_out_is_the_default_of_the_operation(tmp_path):
    nodes = [*reads(*VARIABLES), node("n", "FusedBatchNorm", ["x", *READ])]
    norm = only(tmp_path, nodes)
    assert (norm.eps, norm.channel_axis, norm.new_weight) == (1e-4, 3, None)


@pytest.mark.parametrize(
    ("factor", "training", "weight"),
    [(0.01, True, 0.01), (1.0, True, None), (0.01, False, None), (0.0, True, None)],
)
def test_a_factor_is_the_weight_of_the_new_batch_in_training(tmp_path, factor, training, weight):
    nodes = [*reads(*VARIABLES), fused(exponential_avg_factor=factor, is_training=training)]
    assert only(tmp_path, nodes).new_weight == weight


@pytest.mark.parametrize("between", ["Identity", "Switch", "Cast", "Reshape", "Enter"])
def test_values_are_followed_through_what_does_not_change_them(tmp_path, between):
    nodes = [*reads(*VARIABLES), node("moved", between, [READ[0]])]
    assert only(tmp_path, [*nodes, fused(inputs=("x", "moved:1", *READ[1:]))]).weight == Place(
        VARIABLES[0]
    )


@pytest.mark.parametrize("changed", ["Mul", "Exp", "Const"])
def test_values_that_are_computed_are_no_variables(tmp_path, changed):
    nodes = [*reads(*VARIABLES), node("moved", changed, [READ[0]])]
    assert only(tmp_path, [*nodes, fused(inputs=("x", "moved", *READ[1:]))]).weight is None


@pytest.mark.parametrize(
    ("op", "between"),
    [("Conv2D", ()), ("MatMul", ("BiasAdd",)), ("DepthwiseConv2dNative", ("BiasAdd", "Squeeze"))],
)
def test_the_convolution_in_front(tmp_path, op, between):
    nodes = [*reads(*VARIABLES, "conv/kernel", "conv/bias"),
             node("y", op, ["x", "conv/kernel/read"])]  # fmt: skip
    last = "y"
    for each in between:
        nodes.append(node(f"{last}y", each, [last, "conv/bias/read"][: 1 + (each == "BiasAdd")]))
        last = f"{last}y"
    norm = only(tmp_path, [*nodes, fused(inputs=(last, *READ))])
    assert (norm.kernel, norm.front) == (Place("conv/kernel"), op)
    assert norm.kernel_bias == (Place("conv/bias") if between else None)


def test_an_activation_in_between_hides_the_convolution(tmp_path):
    nodes = [*reads(*VARIABLES, "k"), node("y", "Conv2D", ["x", "k/read"]), node("z", "Relu", "y")]
    assert only(tmp_path, [*nodes, fused(inputs=("z", *READ))]).kernel is None


INNER = function("inner", ARGUMENTS, [fused("n", ["x", "g", "b:0", "m", "v"])])


@pytest.mark.parametrize("call", ["StatefulPartitionedCall", "PartitionedCall"])
def test_functions_are_filled_by_their_calls(tmp_path, call):
    outer = function("outer", ARGUMENTS, [node("c", call, ARGUMENTS, f=("function", "inner"))])
    nodes = [*reads(*VARIABLES), node("c", call, ["x", *READ], f=("function", "outer"))]
    norm = only(tmp_path, nodes, [INNER, outer])
    assert norm == Norm("FusedBatchNormV3", 2e-3, channel_axis=3, **PLACES)


def test_the_branches_of_a_choice_are_filled(tmp_path):
    nodes = [*reads(*VARIABLES),
             node("c", "If", ["flag", "x", *READ], then_branch=("function", "inner"),
                  else_branch=("function", "other"))]  # fmt: skip
    other = function("other", ARGUMENTS, [fused("n", ARGUMENTS, epsilon=0.5)])
    norms, _ = found(tmp_path, nodes, [INNER, other])
    assert {norm.eps: norm.running_var for norm in norms} == {
        2e-3: Place("bn/moving_variance"), 0.5: Place("bn/moving_variance"),
    }  # fmt: skip


def test_what_a_function_captures_are_its_last_arguments(tmp_path):
    objects = saved_objects(VARIABLES, {"inner": [0, 1, 2, 3], "missing": [0]})
    norm = only(tmp_path, [], [INNER], objects)
    assert norm == Norm("FusedBatchNormV3", 2e-3, channel_axis=3, **PLACES)


def test_functions_that_call_themselves_or_each_other_end(tmp_path):
    call = "StatefulPartitionedCall"
    one = function("one", ARGUMENTS, [node("c", call, ARGUMENTS, f=("function", "two"))])
    back = node("c", call, ARGUMENTS, f=("function", "one"))
    two = function("two", ARGUMENTS, [fused("n", ARGUMENTS), back])
    nodes = [*reads(*VARIABLES), node("c", call, ["x", *READ], f=("function", "one"))]
    assert only(tmp_path, nodes, [one, two]).running_mean == Place("bn/moving_mean")


def test_cycles_of_operations_end(tmp_path):
    cycle = [node("a", "Identity", ["b"]), node("b", "Identity", ["a"]),
             node("s", "Sub", ["one", "s"]), node("one", "Const", value=("tensor", 1.0)),
             node("mm", "Merge", ["mm", "mm", "mm", "mm"]),
             node("add", "AddV2", ["a", "s"]), node("add2", "AddV2", ["a", "mm"]),
             node("r", "Rsqrt", ["add"]), node("r2", "Rsqrt", ["add2"])]  # fmt: skip
    norms, updates = found(tmp_path, [*cycle, fused(inputs=["a"] * 5)])
    assert updates == {}
    assert norms == [Norm("FusedBatchNormV3", 2e-3, channel_axis=3)]


def single(scaled=True, centred=True):
    """What tf.nn.batch_normalization computes of x, behind a convolution."""
    yield from reads(*VARIABLES, "conv/kernel")
    yield node("x", "Conv2D", ["image", "conv/kernel/read"])
    yield node("eps", "Const", value=("tensor", 3e-3))
    yield node("add", "AddV2", [READ[3], "eps"])
    yield node("inverse", "Rsqrt", ["add"])
    last = "inverse"
    if scaled:
        yield node("mul", "Mul", ["inverse", READ[0]])
        last = "mul"
    yield node("product", "Mul", ["x", last])
    if centred:
        yield node("shift", "Mul", [READ[2], last])
        yield node("less", "Sub", [READ[1], "shift"])
    else:
        yield node("negative", "Neg", [READ[2]])
        yield node("less", "Mul", ["negative", last])
    yield node("y", "AddV2", ["product", "less"])


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("centred", [True, False])
def test_single_operations_tell_as_much(tmp_path, scaled, centred):
    norm = only(tmp_path, list(single(scaled, centred)))
    assert norm == Norm(
        "Rsqrt", 3e-3, kernel=Place("conv/kernel"), front="Conv2D",
        **PLACES | {"weight": PLACES["weight"] if scaled else None,
                    "bias": PLACES["bias"] if centred else None},
    )  # fmt: skip


@pytest.mark.parametrize("value", [0.0, 1.0, -1e-3, 40.0])
def test_what_is_added_to_a_variance_is_small(tmp_path, value):
    nodes = [*reads("v"), node("eps", "Const", value=("tensor", value)),
             node("add", "AddV2", ["v/read", "eps"]), node("r", "Rsqrt", ["add"])]  # fmt: skip
    assert found(tmp_path, nodes) == ([], {})


@pytest.mark.parametrize(
    ("decay", "weight"),
    [
        ([node("w", "Const", value=("tensor", 0.03))], 0.03),
        ([node("one", "Const", value=("tensor", 1.0)), node("old", "Const", value=("tensor", 0.99)),
          node("w", "Sub", ["one", "old"])], 0.01),
        ([node("one", "Const", value=("tensor", 1.0)), node("old", "Const", value=("tensor", 0.95)),
          node("either", "Merge", ["one", "old"]), node("w", "Sub", ["one", "either"])], 0.05),
        ([node("w", "Const", value=("tensor", 1.0))], None),
        ([node("w", "Placeholder")], None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("op", ["AssignSub", "AssignSubVariableOp"])
def test_updates_of_an_average_tell_their_weight(tmp_path, decay, weight, op):
    nodes = [*reads("m"), node("less", "Sub", ["m/read", "batch"]), *decay,
             node("mul", "Mul", ["less", "w"]), node("u", op, ["m", "mul"])]  # fmt: skip
    assert found(tmp_path, nodes) == ([], {} if weight is None else {"m": {weight}})


def test_far_too_many_uses_are_refused(monkeypatch):
    monkeypatch.setattr("bncli.loaders.tensorflow.norms.MOST_NORMS", 10)
    nodes = {str(at): Node("FusedBatchNorm", (), {"epsilon": at / 100}) for at in range(20)}
    with pytest.raises(UnsupportedFileError, match="its graph uses BatchNorm more than 10 times"):
        found_in(Program(Path("graph"), Graph(nodes)))


def test_calls_that_double_take_no_longer_than_their_functions(tmp_path):
    """2**40 calls of one function, which is looked at once."""
    call = "StatefulPartitionedCall"
    functions = [function("f0", ARGUMENTS, [fused("n", ARGUMENTS)])]
    for at in range(40):
        inner = [node(name, call, ARGUMENTS, f=("function", f"f{at}")) for name in "ab"]
        functions.append(function(f"f{at + 1}", ARGUMENTS, inner))
    nodes = [*reads(*VARIABLES), node("c", call, ["x", *READ], f=("function", "f40"))]
    assert only(tmp_path, nodes, functions).eps == 2e-3


def wide(layers, width):
    """Layers of copies, each of which takes all of the layer before."""
    before = ["r"]
    for layer in range(layers):
        names = [f"c{layer}_{at}" for at in range(width)]
        yield from (node(name, "Identity", before) for name in names)
        before = names
    yield node("product", "Mul", [before[0], "x"])


def roots(count):
    for at in range(count):
        yield node(f"add{at}", "AddV2", ["v/read", "eps" if at % 2 else "m0"])
        yield node("r" if at == 1 else f"r{at}", "Rsqrt", [f"add{at}"])


def test_values_that_use_each_other_in_many_ways_are_looked_at_once(tmp_path, monkeypatch):
    """50**4 ways lead through the copies of one value, which are 200."""
    monkeypatch.setattr("bncli.loaders.tensorflow.norms.MOST_STEPS", 50_000)
    nodes = [*reads("v"), node("eps", "Const", value=("tensor", 1e-3)), *roots(2), *wide(4, 50)]
    (norm,), _ = found(tmp_path, nodes)
    assert norm.running_var == Place("v")


def test_steps_are_counted_over_all_ways(tmp_path, monkeypatch):
    """4**6 ways lead through merges of merges, for each of many roots."""
    monkeypatch.setattr("bncli.loaders.tensorflow.norms.MOST_STEPS", 50_000)
    merges = [node(f"m{at}", "Merge", [f"m{at + 1}"] * 4) for at in range(8)]
    nodes = [*reads("v"), node("eps", "Const", value=("tensor", 1e-3)), *merges, *roots(200)]
    with pytest.raises(UnsupportedFileError, match="takes more than 50000 steps to follow"):
        found(tmp_path, nodes)
