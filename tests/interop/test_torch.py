import functools
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.interop import flax_kernels

FOLDER = Path(__file__).parents[1] / "golden"
GOLDEN = np.load(FOLDER / "torch_continue.npz")
RATE, STEPS = float(GOLDEN["rate"]), int(GOLDEN["steps"])
ORDER = ["conv.weight", "conv.bias", "fc.weight", "fc.bias"]
NAMES = {"conv/kernel": "conv.weight", "conv/bias": "conv.bias", "fc/kernel": "fc.weight", "fc/bias": "fc.bias"}
AMSGRAD = (adamx.scale_by_moments(), adamx.optimizers.running_max(corrected=False), adamx.bias_correction())
SETTINGS = {
    "Adam": adamx.adam(RATE),
    "AdamW": adamx.adamw(RATE, weight_decay=0.1),
    "AMSGrad": optax.chain(*AMSGRAD, adamx.scale_by_lr(RATE)),
    "NAdam": adamx.nadam(RATE),
    "Adamax": adamx.adamax(RATE),
}
CLASSES = {"AMSGrad": "Adam"}
# The gradients of both differ by some ten units of roundoff u, so do the directions, and 50 steps of 1e-3 add up to
# 0.05 * 10 u at parameters of about 1, whose own roundings add 50 u/2 at most: 26 u, 1.6e-6 for float32 were all of one
# sign. Promised are 1e-6 and 1e-12.
BOUNDS = {"float32": 1e-6, "float64": 1e-12}

precisions = pytest.mark.parametrize("precision", BOUNDS)
optimizers = pytest.mark.parametrize("name", SETTINGS)


def empty(dtype):
    shapes = {"conv": {"kernel": (3, 3, 2, 4), "bias": (4,)}, "fc": {"kernel": (4, 3), "bias": (3,)}}
    return jax.tree.map(lambda shape: jnp.zeros(shape, dtype), shapes, is_leaf=lambda x: isinstance(x, tuple))


def golden(name, precision):
    """The model's and the optimizer's state_dict of torch, and the model's after twice the steps."""
    model, after, state = {}, {}, {i: {} for i in range(len(ORDER))}
    for key in GOLDEN.files:
        if key.startswith(f"{name}/{precision}/"):
            _, _, kind, *rest = key.split("/")
            if kind == "state":
                state[int(rest[0])][rest[1]] = GOLDEN[key]
            else:
                {"model": model, "after": after}[kind][rest[0]] = GOLDEN[key]
    return model, {"state": state, "param_groups": [{"params": [0, 1, 2, 3], "param_names": ORDER}]}, after


def loss(params, x, y):
    conv = jax.lax.conv_general_dilated(
        x,
        params["conv"]["kernel"],
        (1, 1),
        "VALID",
        dimension_numbers=("NCHW", "HWIO", "NHWC"),
        precision="highest",
    )
    hidden = jnp.tanh(conv + params["conv"]["bias"]).mean(axis=(1, 2))
    return jnp.mean((jnp.dot(hidden, params["fc"]["kernel"], precision="highest") + params["fc"]["bias"] - y) ** 2)


@functools.partial(jax.jit, static_argnums=0)
def step(tx, params, state, x, y):
    updates, state = tx.update(jax.grad(loss)(params, x, y), state, params)
    return optax.apply_updates(params, updates), state


def train(tx, params, state, steps=STEPS):
    dtype = params["fc"]["bias"].dtype
    x, y = (jnp.asarray(GOLDEN[key], dtype) for key in "xy")
    for _ in range(steps):
        params, state = step(tx, params, state, x, y)
    return params, state


def enable(precision):
    jax.config.update("jax_enable_x64", precision == "float64")


@pytest.fixture(autouse=True)
def single():
    yield
    jax.config.update("jax_enable_x64", False)


def continued(name, precision, model, state_dict):
    params = adamx.interop.params_from_torch(model, NAMES, empty(precision), layout=flax_kernels)
    tx = SETTINGS[name]
    state = adamx.interop.from_torch(state_dict, NAMES, params, tx, layout=flax_kernels)
    return train(tx, params, adamx.interop.check_restored(tx, state, params))


def assert_close(params, model, bound):
    expected = adamx.interop.params_from_torch(model, NAMES, params, layout=flax_kernels)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=bound), params, expected)


@precisions
@optimizers
def test_goes_on_where_torch_stopped(name, precision):
    enable(precision)
    model, state_dict, after = golden(name, precision)
    params, _ = continued(name, precision, model, state_dict)
    assert_close(params, after, BOUNDS[precision])


@precisions
@optimizers
def test_there_and_back(name, precision):
    enable(precision)
    _, state_dict, _ = golden(name, precision)
    params = empty(precision)
    state = adamx.interop.from_torch(state_dict, NAMES, params, SETTINGS[name], layout=flax_kernels)
    numbers = [{**state_dict["param_groups"][0], "betas": (0.9, 0.999), "momentum_decay": 1e6}]
    found = adamx.interop.to_torch(
        state,
        {"state": {}, "param_groups": numbers},
        NAMES,
        optimizer=CLASSES.get(name, name),
        layout=flax_kernels,
        as_tensor=np.asarray,
    )
    assert found["param_groups"] is numbers
    assert found["state"].keys() == state_dict["state"].keys()
    for i, entry in state_dict["state"].items():
        assert found["state"][i].keys() == entry.keys()
        for field, value in entry.items():
            tolerance = 1e-5 if field == "mu_product" else 0  # a product of 50 factors in float32
            np.testing.assert_allclose(found["state"][i][field], value, rtol=tolerance)


STATE = golden("Adam", "float32")[1]
PARAMS = empty("float32")


def convert(state_dict=STATE, names=NAMES, params=PARAMS, tx=None, layout=flax_kernels, **arguments):
    return adamx.interop.from_torch(state_dict, names, params, tx or adamx.adam(1e-3), layout=layout, **arguments)


def test_counts_of_schedules_and_other_parts():
    tx = adamx.adamw(optax.constant_schedule(1e-3), weight_decay=optax.constant_schedule(0.1))
    state = convert(tx=tx)
    assert [int(x.count) for x in state] == [STEPS] * 3
    np.testing.assert_array_equal(state[0].nu["fc"]["kernel"], STATE["state"][2]["exp_avg_sq"].T)


def test_groups_masks_and_wrappers():
    labels = {"conv": "a", "fc": "b"}
    tx = optax.partition({"a": adamx.adam(1e-2), "b": adamx.adam(1e-3)}, labels)
    state = convert(tx=adamx.with_master_weights(tx)).inner.inner_states
    np.testing.assert_array_equal(state["a"].inner_state[0].mu["conv"]["bias"], STATE["state"][1]["exp_avg"])
    np.testing.assert_array_equal(state["b"].inner_state[0].mu["fc"]["bias"], STATE["state"][3]["exp_avg"])


def test_into_codes():
    tx = adamx.adam(1e-3, mu_dtype="bfloat16", nu_dtype=adamx.storage.Int8(min_size=0))
    state = adamx.interop.check_restored(tx, convert(tx=tx), PARAMS)
    assert int(state[0].count) == STEPS
    plain = adamx.interop.restore_as(adamx.adam(1e-3), state, PARAMS)
    np.testing.assert_allclose(plain[0].mu["fc"]["bias"], STATE["state"][3]["exp_avg"], rtol=2.0**-8)
    wide = {"fc": {"kernel": jnp.zeros((4, 32))}}
    with pytest.raises(TypeError, match="no quantized moments, as at fc/kernel"):
        adamx.interop.to_torch(tx.init(wide), STATE, NAMES, optimizer="Adam", layout=flax_kernels, as_tensor=np.asarray)


def test_numbers_without_names():
    nameless = {**STATE, "param_groups": [{"params": [0, 1]}, {"params": [2, 3]}]}
    state = convert(nameless, order=ORDER)
    np.testing.assert_array_equal(state[0].mu["fc"]["bias"], STATE["state"][3]["exp_avg"])
    with pytest.raises(ValueError, match=r"numbers its parameters: in groups of 2 and 2: pass order="):
        convert(nameless)
    with pytest.raises(
        ValueError, match=r"name each of the 4 parameters .* once, 2 and 2 in .*, got \['conv.weight'\]"
    ):
        convert(nameless, order=ORDER[:1])
    with pytest.raises(ValueError, match=r"shape .*; order must have the names of torch's groups one group after"):
        convert({**STATE, "param_groups": [{"params": [0, 2]}, {"params": [1, 3]}]}, order=ORDER)


def changed(number, **fields):
    return {**STATE, "state": {**STATE["state"], number: {**STATE["state"][number], **fields}}}


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"layout": {}}, ValueError, r"for conv/kernel has shape \(4, 2, 3, 3\)"),
        ({"names": {**NAMES, "fc/bias": "fc.b"}}, ValueError, "'fc.b', for fc/bias, is not among torch's"),
        ({"names": {**NAMES, "fc/bias": "conv.bias"}}, ValueError, "two paths the same parameter"),
        ({"state_dict": {**STATE, "state": {0: STATE["state"][0]}}}, ValueError, "nothing for conv.bias, at conv/bias"),
        ({"state_dict": changed(3, step=np.float32(7))}, ValueError, "stepped .* 50 times and fc/bias 7 times"),
        ({"params": {"conv": PARAMS["conv"]}}, ValueError, "no path takes torch's fc.weight, fc.bias"),
        ({"state_dict": golden("AMSGrad", "float32")[1]}, ValueError, r"running_max\(corrected=False\)"),
        ({"tx": SETTINGS["AMSGrad"]}, ValueError, "no max_exp_avg_sq"),
        ({"tx": adamx.amsgrad(1e-3)}, TypeError, "AmsgradState holds that of the corrected v"),
    ],
)
def test_what_does_not_fit_is_named(arguments, error, words):
    with pytest.raises(error, match=words):
        convert(**arguments)


def test_to_torch_refuses():
    how = {"layout": flax_kernels, "as_tensor": np.asarray}
    with pytest.raises(ValueError, match=r"optimizer must be one of Adam, AdamW, .*, got 'SGD'"):
        adamx.interop.to_torch(convert(), STATE, NAMES, optimizer="SGD", **how)
    with pytest.raises(TypeError, match="AmsgradState holds"):
        adamx.interop.to_torch(adamx.amsgrad(1e-3).init(PARAMS), STATE, NAMES, optimizer="Adam", **how)
    state = adamx.adam(1e-3).init({"conv": PARAMS["conv"]})
    with pytest.raises(ValueError, match=r"no moments for torch's fc.weight, fc.bias"):
        adamx.interop.to_torch(state, STATE, NAMES, optimizer="Adam", **how)


@pytest.fixture
def network():
    pytest.importorskip("torch")
    spec = importlib.util.spec_from_file_location("make_torch_continue", FOLDER / "make_torch_continue.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.torch
@precisions
@optimizers
def test_with_torch_itself_both_ways(name, precision, network):
    import torch  # noqa: PLC0415

    enable(precision)
    net, optimizer = network.start(name, network.DTYPES[precision])
    network.train(net, optimizer, STEPS)
    saved = {key: value.clone() for key, value in net.state_dict().items()}
    params, state = continued(name, precision, saved, optimizer.state_dict())
    network.train(net, optimizer, STEPS)
    assert_close(params, net.state_dict(), BOUNDS[precision])

    back, new = network.start(name, network.DTYPES[precision])
    how = {"layout": flax_kernels, "as_tensor": torch.from_numpy}
    back.load_state_dict(adamx.interop.params_to_torch(params, back.state_dict(), NAMES, **how))
    kind = type(new).__name__
    new.load_state_dict(adamx.interop.to_torch(state, new.state_dict(), NAMES, optimizer=kind, **how))
    network.train(back, new, STEPS)
    params, _ = train(SETTINGS[name], params, state)
    assert_close(params, back.state_dict(), BOUNDS[precision])
