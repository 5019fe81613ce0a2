"""Composition as a table: every transformation that optax exports, in every gap of the chain of three stages.

Before stage 1, between 2 and 3, and after 3 a transformation works, with the bits that it has around optax's own Adam.
Between stage 1 and stage 2 it is told where to go instead.
"""

import contextlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.transforms
import pytest

import adamx

ADAMX = (adamx.scale_by_moments(), adamx.bias_correction(), adamx.scale_by_lr(0.1))
OPTAX = (optax.scale_by_adam(), optax.scale_by_learning_rate(0.1))
BEFORE_1, BETWEEN_1_AND_2, BETWEEN_2_AND_3, AFTER_3 = range(4)

PARAMS = {"w": jnp.array([[1.0, 0.5], [0.25, 2.0]])}
GRADIENTS = {"w": jnp.array([[0.1, -0.3], [0.5, 0.7]])}
MASK = {"w": True}


def half_square(tree):
    return 0.5 * sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(tree))


HALVE = optax.scale(0.5)
WITHOUT_ARGUMENTS = """
    adadelta adafactor apply_every centralize identity keep_params_nonnegative named_chain
    normalize_by_update_norm polyak_sgd scale_by_adadelta scale_by_adam scale_by_adamax scale_by_adan scale_by_amsgrad
    scale_by_belief scale_by_distance_over_gradients scale_by_factored_rms scale_by_lbfgs scale_by_lion
    scale_by_novograd scale_by_optimistic_gradient scale_by_param_block_norm scale_by_param_block_rms scale_by_polyak
    scale_by_radam scale_by_rms scale_by_rss scale_by_sign scale_by_sm3 scale_by_stddev scale_by_trust_ratio
    scale_by_yogi set_to_zero zero_nans
"""
WITH_ONE_NUMBER = """
    adabelief adagrad adam adamax adamaxw adamw adan adaptive_grad_clip add_decayed_weights amsgrad clip
    clip_by_block_rms clip_by_global_norm ema fromage lamb lars lion nadam nadamw novograd optimistic_adam_v2
     optimistic_gradient_descent radam rmsprop rprop scale scale_by_learning_rate scale_by_rprop sgd
    sign_sgd signum sm3 trace yogi
"""
ARGUMENTS = {
    **dict.fromkeys(WITHOUT_ARGUMENTS.split(), ()),
    **dict.fromkeys(WITH_ONE_NUMBER.split(), (0.5,)),
    "add_noise": (0.1, 0.5, 0),
    "apply_if_finite": (HALVE, 3),
    "chain": (HALVE, HALVE),
    "conditionally_mask": (HALVE, lambda step: step > 0),
    "conditionally_transform": (HALVE, lambda step: step > 0),
    "flatten": (HALVE,),
    "freeze": (MASK,),
    "lbfgs": (0.5, 2, True, None),
    "masked": (HALVE, MASK),
    "monitor": ({"half square": half_square},),
    "multi_transform": ({"halved": HALVE}, "halved"),
    "noisy_sgd": (0.5, 0.1, 0.5, 0),
    "partition": ({"halved": HALVE}, "halved"),
    "scale_by_backtracking_linesearch": (2,),
    "scale_by_schedule": (optax.constant_schedule(0.5),),
    "scale_by_zoom_linesearch": (2,),
    "selective_transform": (HALVE,),
    "snapshot": ("half square", half_square),
    "stateless": (lambda updates, params: jax.tree.map(jnp.sin, updates),),
    "stateless_with_tree_map": (lambda u, p: u * p,),
    "with_extra_args_support": (HALVE,),
}
KEYWORDS = {"selective_transform": {"freeze_mask": MASK}}
NOT_A_MEMBER_OF_A_CHAIN = {
    "inject_hyperparams": "takes a factory and gives a factory: test_wrappers",
    "inject_stateful_hyperparams": "takes a factory and gives a factory: test_wrappers",
    "lookahead": "updates pairs of parameters: test_wrappers",
    "optimistic_adam": "deprecated, warns",
    "measure_with_ema": "gives its measurement instead of updates: a part of monitor",
}
NEVER_LOOKS_AT_THE_TREE = {
    "identity": optax.identity(),
    "chain of identity": optax.chain(optax.identity()),
    "named_chain of nothing": optax.named_chain(),
    "with_extra_args_support of identity": optax.with_extra_args_support(optax.identity()),
    "stateless": optax.stateless(lambda updates, params: updates),
}
MAPS_OVER_THE_PARAMETERS = ["keep_params_nonnegative", "scale_by_distance_over_gradients"]

NAN_IN_OPTAX_ITSELF = {("0.2.5", "scale_by_distance_over_gradients")}

EXPORTS = {**vars(optax.transforms), **vars(optax)}
TABLE = [name for name in ARGUMENTS if name in EXPORTS and (optax.__version__, name) not in NAN_IN_OPTAX_ITSELF]


def transformation(name):
    return EXPORTS[name](*ARGUMENTS[name], **KEYWORDS.get(name, {}))


def put(tx, stages, gap):
    return optax.chain(*stages[:gap], tx, *stages[gap:])


def op_by_op(function):
    """Instead of `jax.jit`, where compiling would show nothing new and takes long."""
    return function


def two_steps(chains, params, gradients, jit=jax.jit):
    """What each chain's update gives in two steps; with `jit` all the chains are compiled as one function."""
    extra = {"value": half_square(params), "grad": params, "value_fn": half_square}
    step = jit(lambda states: {k: tx.update(gradients, states[k], params, **extra) for k, tx in chains.items()})
    first = step({k: tx.init(params) for k, tx in chains.items()})
    return first, step({k: state for k, (_, state) in first.items()})


def types(tree):
    return jax.eval_shape(lambda: tree)


def bits(tree):
    return jax.tree.map(lambda x: (x.dtype, np.asarray(x).tobytes()), tree)


def makes_a_transformation(export):
    """Whether a call with next to nothing gives one, or optax annotates it so."""
    if inspect.isclass(export) or not callable(export):
        return False
    for next_to_nothing in [(), ({},)]:
        with contextlib.suppress(Exception):
            if isinstance(export(*next_to_nothing), optax.GradientTransformation):
                return True
    with contextlib.suppress(ValueError):
        return "GradientTransformation" in str(inspect.signature(export).return_annotation)
    return False


def test_every_transformation_of_optax_has_its_row():
    found = {name for name, export in EXPORTS.items() if not name.startswith("_") and makes_a_transformation(export)}
    assert found >= set(TABLE)
    if optax.__version__ == "0.2.8":
        listed = {*ARGUMENTS, *NOT_A_MEMBER_OF_A_CHAIN}
        assert found - listed == set(), "new in optax: add to ARGUMENTS, or to NOT_A_MEMBER_OF_A_CHAIN with the reason"
        assert listed - found == set(), "optax exports no such transformation"


@pytest.mark.parametrize("name", TABLE)
def test_works_before_stage_1_between_2_and_3_and_after_3(name):
    tx, gaps = transformation(name), [BEFORE_1, BETWEEN_2_AND_3, AFTER_3]
    chains = {("adamx", gap): put(tx, ADAMX, gap) for gap in gaps}
    peers = {("optax", gap): put(tx, OPTAX, max(gap - 1, 0)) for gap in gaps}
    is_a_chain_of_others = EXPORTS[name].__module__ == optax.adam.__module__ and name != "lbfgs"
    jit = op_by_op if is_a_chain_of_others else jax.jit
    first, second = two_steps(chains | peers, PARAMS, GRADIENTS, jit)
    for gap in gaps:
        (_, before), (updates, after), (expected, _) = first["adamx", gap], second["adamx", gap], second["optax", gap]
        assert types(updates) == types(GRADIENTS), f"gap {gap}"
        assert types(after) == types(before), f"gap {gap}"
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(updates)), f"gap {gap}"
        assert bits(updates) == bits(expected), f"gap {gap}"


@pytest.mark.parametrize("name", [name for name in TABLE if name not in {"identity", "named_chain"}])
def test_between_stage_1_and_2_is_told_where_to_go(name):
    chain = put(transformation(name), ADAMX, BETWEEN_1_AND_2)
    alone = name in MAPS_OVER_THE_PARAMETERS
    with pytest.raises(TypeError, match=r"bias_correction.*uncorrected") as error:
        two_steps({name: chain}, PARAMS["w"] if alone else PARAMS, GRADIENTS["w"] if alone else GRADIENTS)
    assert "put other transformations before scale_by_moments() or after bias_correction()" in str(error.value)


@pytest.mark.parametrize("name", [name for name in MAPS_OVER_THE_PARAMETERS if name in TABLE])
def test_between_stage_1_and_2_jax_itself_refuses_what_maps_over_a_tree_of_parameters(name):
    with pytest.raises(ValueError, match="Moments"):
        two_steps({name: put(transformation(name), ADAMX, BETWEEN_1_AND_2)}, PARAMS, GRADIENTS)


def test_between_stage_1_and_2_what_never_looks_at_the_tree_changes_no_bit():
    chains = {name: put(tx, ADAMX, BETWEEN_1_AND_2) for name, tx in NEVER_LOOKS_AT_THE_TREE.items()}
    _, results = two_steps({"alone": optax.chain(*ADAMX), **chains}, PARAMS, GRADIENTS)
    for name, (updates, _) in results.items():
        assert bits(updates) == bits(results["alone"][0]), name
