import contextlib

import jax
import jax.numpy as jnp
import pytest
from jax import export

import adamx
from adamx.core.averages import averages_of, of_squares
from adamx.core.leaf import PLAIN, STOCHASTIC, Leaf, Rule
from adamx.kernels.layout import DITHERED, INT8
from adamx.kernels.pallas import call
from adamx.kernels.pallas.call import block_of, pallas_form
from adamx.kernels.pallas.compilers import PLATFORMS
from adamx.storage import Float, Int8
from tests.tiles import CASES, INT8_MOMENTS, STORAGES, WRAPPERS

OUTSIDE = {"small": (2, 128), "narrow": (1024, 24)}
CALLS = {"cuda": "__gpu$xla.gpu.triton", "rocm": "__gpu$xla.gpu.triton", "tpu": "tpu_custom_call"}


def device(platform):
    """A context in which a program can be lowered for a device that is not at hand, where JAX wants to be told."""
    if platform != "cuda" or not hasattr(jax.sharding, "AbstractDevice"):
        return contextlib.nullcontext()
    there = jax.sharding.AbstractDevice("NVIDIA H100", None, "cuda")
    return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), (), abstract_device=there))


def leaf(shape=(128, 256), dtype="float32", mu="int8", nu="int8", blocks=(128, 128), behind=PLAIN):
    tx = adamx.adam(
        0.1,
        mu_dtype=Int8(blocks[0], 0) if mu == "int8" else mu,
        nu_dtype=Int8(blocks[1], 0) if nu == "int8" else nu,
    )
    params = jnp.zeros(shape, dtype)
    moments = tx.init(params)[0]
    codecs = [
        Int8(size, 0) if kind == "int8" else Float(kind, stochastic=kind == "bfloat16")
        for kind, size in zip((mu, nu), blocks, strict=True)
    ]
    averages = averages_of(of_squares, 0.9, 0.999, None, None, False).replace(mu_codec=codecs[0], nu_codec=codecs[1])
    return Leaf(params, params, None, moments.mu, moments.nu), Rule(averages, 1e-8, False, behind)


def test_what_the_kernel_takes():
    for platform in CALLS:
        form = pallas_form(*leaf(), platform)
        assert (form.mu, form.nu, block_of(form)) == ((INT8, 128), (INT8, 128), 128)
        assert pallas_form(*leaf(mu="bfloat16", nu="bfloat16"), platform).nu[0] == DITHERED
        assert pallas_form(*leaf(mu="float32"), platform) is not None
        assert pallas_form(*leaf(dtype="bfloat16", behind=STOCHASTIC), platform) is not None


@pytest.mark.parametrize(
    "arguments",
    [
        {"shape": (8, 256)},
        {"shape": (128, 200)},
        {"shape": ()},
        {"dtype": "float16"},
        {"mu": "float32", "nu": "float32"},
        {"blocks": (64, 128)},
    ],
)
def test_what_is_left_to_xla(arguments):
    for platform in CALLS:
        assert pallas_form(*leaf(**arguments), platform) is None


@pytest.mark.slow
def test_what_a_tpu_leaves_to_xla():
    for arguments in ({"blocks": (64, 64)}, {"shape": (129 * 128,)}, {"shape": (64, 3, 256)}, {"shape": (1, 1 << 14)}):
        assert pallas_form(*leaf(**arguments), "cuda") is not None
        assert pallas_form(*leaf(**arguments), "tpu") is None


@pytest.mark.slow
@pytest.mark.parametrize("platform", CALLS)
@pytest.mark.parametrize(("storage", "wrapper"), [case for case in CASES if case[0] != "narrow int8"])
def test_the_step_lowers_to_the_kernel(storage, wrapper, platform):
    wrap, dtype = WRAPPERS[wrapper]
    tx = wrap(adamx.adamw(1e-3, **STORAGES[storage]))
    shapes = {"two": (64, 512), "three": (3, 40, 256), "few rows": (16, 4096), "one": (1 << 14,), **OUTSIDE}
    params = {name: jax.ShapeDtypeStruct(shape, dtype) for name, shape in shapes.items()}
    step = jax.jit(lambda p, s, g: adamx.step(tx, g, s, p), donate_argnums=(0, 1))
    state = jax.eval_shape(tx.init, params)
    with device(platform):
        text = step.trace(params, state, params).lower(lowering_platforms=(platform,)).as_text()
    known = platform in PLATFORMS and (platform != "rocm" or adamx.kernels.backend("rocm").name == "pallas")
    assert text.count(f"@{CALLS[platform]}(") == (4 if known else 0)
    assert "gather" not in text


@pytest.mark.slow
@pytest.mark.parametrize("platform", CALLS)
def test_without_a_device_or_a_compiler_xla_does_the_work(platform, monkeypatch):
    """Lowering and `jax.export` never raise for want of a kernel, and `backend` says why there is none."""

    def missing(*_, **__):
        raise NotImplementedError("no such compiler\nand more")

    tx, params = adamx.adam(1e-3, **INT8_MOMENTS), jnp.ones((256, 256))
    step = jax.jit(lambda p, s: adamx.step(tx, p, s, p))
    monkeypatch.setattr(call, "options_for", missing)
    call._problem.cache_clear()
    text = step.trace(params, tx.init(params)).lower(lowering_platforms=(platform,)).as_text()
    assert CALLS[platform] not in text
    export.export(step, platforms=[platform])(params, tx.init(params))
    found = adamx.kernels.backend(platform)
    assert found.name == "xla"
    if platform in PLATFORMS:
        assert found.detail == "Pallas cannot lower the kernel: NotImplementedError: no such compiler"
    call._problem.cache_clear()


@pytest.mark.slow
def test_without_a_gpu_at_hand_a_program_for_one_lowers():
    tx, params = adamx.adam(1e-3, **INT8_MOMENTS), jnp.ones((256, 256))
    step = jax.jit(lambda p, s: adamx.step(tx, p, s, p))
    for platform, target in CALLS.items():
        text = step.trace(params, tx.init(params)).lower(lowering_platforms=(platform,)).as_text()
        assert (target in text) == (adamx.kernels.backend(platform).name == "pallas")


def test_float32_moments_are_left_to_xla():
    tx, params = adamx.adam(1e-3), jnp.ones((256, 256))
    step = jax.jit(lambda p, s: adamx.step(tx, p, s, p))
    for platform, target in CALLS.items():
        text = step.trace(params, tx.init(params)).lower(lowering_platforms=(platform,)).as_text()
        assert target not in text


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(jax, "shard_map"), reason="this JAX keeps shard_map elsewhere")
def test_inside_shard_map_the_kernel_works_on_the_shards():
    tx, spec = adamx.adam(1e-3, **INT8_MOMENTS), jax.sharding.PartitionSpec("data")
    mesh, params = jax.sharding.Mesh(jax.devices()[:1], ("data",)), jnp.ones((256, 256))

    def step(p):
        offsets = adamx.storage.shard_offsets(p, spec)
        return adamx.step(tx, p, tx.init(p), p, dither_offset=offsets)[0]

    sharded = jax.jit(jax.shard_map(step, mesh=mesh, in_specs=spec, out_specs=spec))
    for platform in PLATFORMS:
        text = sharded.trace(params).lower(lowering_platforms=(platform,)).as_text()
        assert (CALLS[platform] in text) == (adamx.kernels.backend(platform).name == "pallas")


def test_lowered_for_several_platforms_at_once_xla_does_the_work():
    tx, params = adamx.adam(1e-3, **INT8_MOMENTS), jnp.ones((256, 256))
    step = jax.jit(lambda p, s: adamx.step(tx, p, s, p))
    text = step.trace(params, tx.init(params)).lower(lowering_platforms=("cuda", "tpu")).as_text()
    assert not any(call in text for call in CALLS.values())
