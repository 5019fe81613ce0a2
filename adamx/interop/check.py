"""Whether a restored state is the optimizer's."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamx.differences import first_difference
from adamx.interop.moments import by_path
from adamx.storage import Quantized
from adamx.trees import Tree
from adamx.variables import bare

SHOWN = 8
"""So many differences stand in an error."""

WHAT_TO_DO = {
    "dtype": "A moment in another dtype or codec moves to the storage of tx by "
    "adamx.interop.restore_as(tx, state, params).",
    "shape": "Arrays of another shape belong to other parameters: restore with the params of that run.",
    "structure": "A state restores into its own types with tx.init(params) as the template, tx made as for the run "
    "that saved it; one of optax becomes adamx's by adamx.interop.from_optax(state).",
}


def check_restored(tx: optax.GradientTransformation, state: Any, params: optax.Params) -> Any:
    """Returns the state if it has the structure, shapes and dtypes of `tx.init(params)`, and raises otherwise.

    A checkpoint that is restored without a template, or with the template of another run, has other containers, or
    dtypes that were cast without a word. What cannot be seen: another optimizer whose state has the same layout, as
    that of `adamx` and `adam`; and damaged values, for which there is `fingerprint`.

    Args:
        tx: the transformation that is to go on with the state.
        state: what a checkpoint gave; arrays or `jax.ShapeDtypeStruct`.
        params: the parameters; arrays or `jax.ShapeDtypeStruct`.

    Returns:
        `state`.

    Raises:
        TypeError: it differs; the error lists the paths, what was expected there and what came, and says what to do.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> params = {"w": jnp.zeros(2)}
        >>> saved = adamx.adam(1e-3).init(params)
        >>> adamx.interop.check_restored(adamx.adam(1e-3), saved, params)[0].nu["w"]
        Array([0., 0.], dtype=float32)
        >>> adamx.interop.check_restored(adamx.adam(1e-3, nu_dtype="float16"), saved, params)
        Traceback (most recent call last):
        TypeError: the restored state is not as tx.init(params) makes it:
          0/nu/w: expected float16 codes with scales of bfloat16(1, 1), got float32
        A moment in another dtype or codec moves to the storage of tx by adamx.interop.restore_as(tx, state, params).
    """
    expected = jax.eval_shape(tx.init, params)
    found = differences(expected, state)
    if found:
        shown = [words for _, words in found[:SHOWN]]
        shown += [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
        advice = [WHAT_TO_DO[kind] for kind in WHAT_TO_DO if kind in {kind for kind, _ in found}]
        lines = "\n  ".join(shown)
        raise TypeError(f"the restored state is not as tx.init(params) makes it:\n  {lines}\n{' '.join(advice)}")
    return state


def differences(expected: Tree, got: Tree) -> list[tuple[str, str]]:
    """Where a tree differs from the expected one: the kind of each difference, of WHAT_TO_DO, and it in words."""
    expected, got = bare(expected), bare(got)
    wanted, came = by_path(expected), by_path(got)
    found: list[tuple[str, str]] = []
    for path in sorted(wanted.keys() | came.keys()):
        if path not in came or path not in wanted:
            word, leaf = ("missing", wanted[path]) if path in wanted else ("unexpected", came[path])
            shape, dtype = _shape_and_dtype(leaf)
            found.append(("structure", f"{word} {path}, {dtype}{shape}"))
            continue
        for kind, one, other in zip(
            ("shape", "dtype"), *map(_shape_and_dtype, (wanted[path], came[path])), strict=True
        ):
            if one != other:
                found.append((kind, f"{path}: expected {one}, got {other}"))
    if not found and jax.tree.structure(expected) != jax.tree.structure(got):
        found.append(("structure", first_difference(expected, got) or "another structure"))
    return found


def _shape_and_dtype(leaf: Any) -> tuple[tuple[int, ...], str]:
    if isinstance(leaf, Quantized):
        return tuple(leaf.codes.shape), f"{leaf.codes.dtype} codes with scales of {_words(leaf.scales)}"
    if hasattr(leaf, "dtype"):
        return tuple(leaf.shape), str(leaf.dtype)
    number = isinstance(leaf, bool | int | float | complex)
    return (), str(jnp.result_type(leaf)) if number else type(leaf).__name__


def _words(array: Any) -> str:
    return f"{array.dtype}{tuple(array.shape)}"
