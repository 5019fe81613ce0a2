"""Which backend there is, and what the kernel says to calls that are wrong."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamx.kernels import native
from tests.backends import needs_kernel

ATTRIBUTES = {
    **dict.fromkeys(("weights", "mu_storage", "nu_storage"), np.int64(0)),
    **dict.fromkeys(("mu_block", "nu_block"), np.int64(1)),
    **dict.fromkeys(("norms", "nesterov", "precise1", "precise2"), False),
}
OPERANDS = {
    "numbers": jnp.full(10, 0.5, jnp.float32).at[9].set(1.0),
    "counts": jnp.zeros(2, jnp.uint32),
    "salts": jnp.zeros((1, 3), jnp.uint32),
    "terms": jnp.full((1, 2), -0.5, jnp.float32),
    "gradient": jnp.ones((2, 3)),
    "parameter": jnp.ones((2, 3)),
    "mu": jnp.ones((2, 3)),
    "nu": jnp.ones((2, 3)),
}

INSTRUCTIONS = """
import hashlib, jax, jax.numpy as jnp, numpy as np, adamx
from adamx.storage import Int4, Int8
coded, four = Int8(block_size=32, min_size=0), Int4(block_size=32, min_size=0)
in_eight = adamx.adam(1e-2, b1=0.5, b2=0.5, mu_dtype=coded, nu_dtype=coded)
in_four = adamx.adam(1e-2, b1=0.5, b2=0.5, mu_dtype=four, nu_dtype=four)
tx = adamx.route({"v": in_four}, default=in_eight)
params = {"w": jnp.ones((7, 150)), "b": jnp.ones(3), "v": jnp.ones((7, 150))}
state = tx.init(params)
step = jax.jit(lambda p, s, g: adamx.step(tx, g, s, p))
for t in range(1, 4):
    gradients = jax.tree.map(lambda x: jnp.asarray(np.random.default_rng(t).normal(size=x.shape), x.dtype), params)
    params, state = step(params, state, gradients)
print(adamx.kernels.backend().detail, hashlib.sha256(b"".join(x.tobytes() for x in jax.tree.leaves(state))).hexdigest())
"""


def called(operands, **attributes):
    """What the kernel makes of the arrays from "parameter" on."""
    changed = [x for name, x in operands.items() if name in ("parameter", "mu", "nu") or name.startswith("more")]
    first = len(operands) - len(changed)
    types = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in changed]
    aliases = {first + i: i for i in range(len(changed))}
    call = jax.ffi.ffi_call(native.TARGET, types, input_output_aliases=aliases)
    return jax.block_until_ready(jax.jit(lambda *x: call(*x, **(ATTRIBUTES | attributes)))(*operands.values()))


def found(monkeypatch, folder=None):
    """What `backend` finds in a folder, not kept."""
    if folder is not None:
        monkeypatch.setattr(native, "_folders", lambda: [str(folder)])
    return native.backend.__wrapped__()


def in_folder(folder):
    (folder / "cpu").mkdir()
    return folder / "cpu" / "adamx_cpu.so"


def test_without_a_library(monkeypatch, tmp_path):
    got = found(monkeypatch, tmp_path)
    assert got.name == "xla"
    assert "no C++17 compiler" in got.detail


def test_with_a_file_that_is_no_library(monkeypatch, tmp_path):
    in_folder(tmp_path).write_bytes(b"not a library")
    got = found(monkeypatch, tmp_path)
    assert got.name == "xla"
    assert got.detail.startswith("the kernel cannot be loaded: ")


def test_with_a_library_that_is_no_kernel(monkeypatch, tmp_path):
    in_folder(tmp_path).symlink_to(np.linalg._umath_linalg.__file__)
    got = found(monkeypatch, tmp_path)
    assert str(got) == "xla: the kernel was built for another version of adamx: install it again"


@needs_kernel
def test_with_the_kernel(monkeypatch):
    got = found(monkeypatch)
    assert got == native.backend()
    assert got.name == "native"
    assert got.detail in ("AVX-512", "AVX2", "SSE2", "NEON", "generic")


@needs_kernel
def test_with_the_kernel_of_another_version(monkeypatch):
    monkeypatch.setattr(native, "INTERFACE", native.INTERFACE + 1)
    assert found(monkeypatch) == ("xla", "the kernel was built for another version of adamx: install it again")


def test_the_interface_is_that_of_the_sources():
    header = Path(native.__file__).parent / "cpu" / "operands.h"
    assert f"kInterface = {native.INTERFACE};" in header.read_text()


@needs_kernel
@pytest.mark.parametrize("running", [(0, 0), (1, 0)])
def test_with_a_kernel_for_another_xla(monkeypatch, running):
    monkeypatch.setattr(native, "_running_api", lambda: running)
    got = found(monkeypatch)
    assert got.name == "xla"
    assert got.detail.endswith("of XLA's interface, this is {}.{}".format(*running))


@needs_kernel
def test_with_a_newer_xla(monkeypatch):
    major, minor = native._running_api()
    monkeypatch.setattr(native, "_running_api", lambda: (major, minor + 1))
    assert found(monkeypatch).name == "native"


@needs_kernel
def test_a_call_that_is_right():
    param, mu, nu = called(OPERANDS)
    assert [x.shape for x in (param, mu, nu)] == [(2, 3)] * 3
    np.testing.assert_array_equal(jnp.stack([mu, nu]), 1.0)


@needs_kernel
@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"numbers": jnp.zeros(11)}, r"numbers must have shape \(10\), got \(11\)"),
        ({"numbers": jnp.zeros(10, jnp.int32)}, "numbers must be float32, got another"),
        ({"counts": jnp.zeros(2, jnp.float32)}, "counts must be uint32, got float32"),
        ({"salts": jnp.zeros((1, 2), jnp.uint32)}, "salts must be 3 a leaf"),
        ({"salts": jnp.zeros((0, 3), jnp.uint32), "terms": jnp.zeros((0, 2))}, "too many arrays"),
        ({"terms": jnp.zeros((2, 2))}, r"terms must have shape \(1, 2\), got \(2, 2\)"),
        ({"salts": jnp.zeros((2, 3), jnp.uint32), "terms": jnp.zeros((2, 2))}, "a gradient is missing"),
        ({"gradient": jnp.ones((2, 3), jnp.int8)}, "a gradient must be float32 or half precision, got int8"),
        ({"gradient": jnp.ones((3, 2))}, r"a gradient must have shape \(2, 3\), got \(3, 2\)"),
        ({"gradient": jnp.ones((0, 3))}, r"a gradient must have shape \(2, 3\), got \(0, 3\)"),
        ({"mu": jnp.ones((2, 3), jnp.bfloat16)}, "mu must be float32, got bfloat16"),
        ({"nu": jnp.ones((2, 4))}, r"nu must have shape \(2, 3\), got \(2, 4\)"),
        ({"nu": jnp.ones((0,))}, r"nu must have shape \(2, 3\), got \(0\)"),
        ({"more": jnp.ones(1)}, "too many arrays"),
    ],
)
def test_arrays_that_are_wrong(changed, sentence):
    with pytest.raises(jax.errors.JaxRuntimeError, match=f"adamx: .*{sentence}"):
        called(OPERANDS | changed)


@needs_kernel
@pytest.mark.parametrize("name", OPERANDS)
def test_an_array_that_is_missing(name):
    with pytest.raises(jax.errors.JaxRuntimeError, match="adamx: "):
        called({other: x for other, x in OPERANDS.items() if other != name})


@needs_kernel
@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({"mu_storage": 5}, "a moment is stored in no way known here"),
        ({"nu_storage": -1}, "a moment is stored in no way known here"),
        ({"weights": 4}, "a parameter is rounded in no way known here"),
        ({"mu_storage": 3, "mu_block": 0}, "a block must have a multiple of 16 elements up to 1024"),
        ({"nu_storage": 3, "nu_block": 2048}, "a block must have a multiple of 16 elements up to 1024"),
        ({"mu_storage": 3, "mu_block": 32, "nu_storage": 3, "nu_block": 48}, "those of mu and nu must nest"),
        ({"mu_storage": 3, "mu_block": 16}, "mu must be int8, got float32"),
        ({"nu_storage": 4, "nu_block": 16}, "nu must be int4, got float32"),
    ],
)
def test_attributes_that_are_wrong(attributes, sentence):
    with pytest.raises(jax.errors.JaxRuntimeError, match=f"adamx: .*{sentence}"):
        called(OPERANDS, **{name: np.int64(value) for name, value in attributes.items()})


@needs_kernel
@pytest.mark.parametrize("attributes", [{"weights": True}, {"nesterov": np.int64(1)}, {"another": np.int64(1)}])
def test_attributes_of_another_kind(attributes):
    with pytest.raises(jax.errors.JaxRuntimeError, match="INVALID_ARGUMENT"):
        called(OPERANDS, **attributes)


@needs_kernel
@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_leaves_without_elements(shape):
    got = called({name: jnp.ones(shape) if x.shape == (2, 3) else x for name, x in OPERANDS.items()})
    assert [x.shape for x in got] == [shape] * 3


@needs_kernel
@pytest.mark.slow
def test_instructions_that_are_asked_for():
    """All of them give the same codes; what is unknown is not heard."""

    def run(asked):
        environment = {k: v for k, v in os.environ.items() if k != "ADAMX_INSTRUCTIONS"}
        environment |= {"ADAMX_INSTRUCTIONS": asked} if asked else {}
        program = [sys.executable, "-c", INSTRUCTIONS]
        return subprocess.run(program, env=environment, check=True, capture_output=True, text=True).stdout.split()

    names = {asked: run(asked) for asked in (None, "portable", "avx2", "another")}
    assert names["portable"][0] in ("SSE2", "NEON", "generic")
    assert names["another"] == names[None]
    if names[None][0] == "AVX-512":
        assert names["avx2"][0] == "AVX2"
    assert {codes for _, codes in names.values()} == {names[None][1]}
