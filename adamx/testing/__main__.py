"""`python -m adamx.testing`: adamx.adam and adamw against optax and against the float64 oracle, as one table.

Exits with 1 if a promise of the table does not hold on this machine.
"""

import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamx
from adamx.testing.comparison import compare
from adamx.testing.oracle import reference_adam

STEPS = 100
RATE = 1e-3
SHAPES = {"matrix": (33, 7), "vector": (4099,), "scalar": (), "empty": (0, 3)}


class Setting(NamedTuple):
    """Arguments of an optimizer, under optax's names and under the oracle's."""

    name: str
    optimizer: str
    arguments: dict[str, Any]
    oracle: dict[str, Any]
    schedule: bool = False


class Row(NamedTuple):
    """A line of the table; ulps to optax and error to the oracle come with what is promised for them."""

    setting: str
    dtype: str
    ulps: float | None
    max_ulps: float | None
    error: float
    max_error: float

    @property
    def holds(self) -> bool:
        """Whether both numbers are within their promise."""
        same = self.ulps is None or self.max_ulps is None or self.ulps <= self.max_ulps
        return same and self.error <= self.max_error


SETTINGS = (
    Setting("adam", "adam", {}, {}),
    Setting("adam, eps_root", "adam", {"eps_root": 1e-8}, {"epsilon_root": 1e-8}),
    Setting("adam, nesterov", "adam", {"nesterov": True}, {"nesterov": True}),
    Setting("adam, b1=0, b2=0.99", "adam", {"b1": 0.0, "b2": 0.99}, {"beta1": 0.0, "beta2": 0.99}),
    Setting("adam, schedule", "adam", {}, {}, schedule=True),
    Setting("adamw", "adamw", {"weight_decay": 0.1}, {"weight_decay": 0.1}),
    Setting("adamw, schedule", "adamw", {"weight_decay": 0.1}, {"weight_decay": 0.1}, schedule=True),
)
PRECISE = Setting("adam, precise", "adam", {"precise": True, "b2": 0.9999}, {"beta2": 0.9999})

# Errors are relative to the larger of |update| and α. float32: the weight 1-β2^t in float32 is off by 1e-5.
ERRORS = {"float32": 2e-5, "complex64": 2e-5, "float64": 1e-12}
PRECISE_ERROR = 1e-6  # the roundings of m and v in float32
# Half precision: a unit roundoff for each time the update, or the parameter that decays, is rounded.
UNIT_ROUNDOFF = {"bfloat16": 2**-8, "float16": 2**-11}
ROUNDINGS = {"adam": 2, "adamw": 4}
COMPLEX_ULPS = 16.0  # of α: optax divides by complex weights, adamx by real ones


def warm_up(count: Any) -> Any:
    """A schedule that NumPy and JAX both evaluate."""
    return RATE * (1 + count) / STEPS


def stream(dtype: str) -> tuple[Any, list[Any]]:
    """Parameters of every shape, and gradients over eight orders of magnitude, some steps and elements all zero."""
    random = np.random.default_rng(0)

    def draw(shape: tuple[int, ...], scale: float) -> jax.Array:
        x = random.standard_normal(shape) + (1j * random.standard_normal(shape) if dtype == "complex64" else 0)
        return jnp.asarray(x * scale * (random.random(shape) > 0.1), dtype)

    params = {name: draw(shape, 1.0) for name, shape in SHAPES.items()}
    scales = [0.0 if t % 10 == 3 else 10.0 ** (t % 9 - 6) for t in range(STEPS)]
    return params, [{name: draw(shape, scale) for name, shape in SHAPES.items()} for scale in scales]


def error_to_oracle(setting: Setting, dtype: str, build: Callable[..., Any]) -> float:
    """The largest error of an update for the oracle's gradients and parameters, relative to the larger of it and α."""
    params, gradients = stream(dtype)
    tx = build(warm_up if setting.schedule else RATE, **setting.arguments)
    step = jax.jit(tx.update)
    worst = 0.0
    exact = {
        name: reference_adam(
            params[name], [g[name] for g in gradients], warm_up if setting.schedule else RATE, **setting.oracle
        )
        for name in params
    }
    state = tx.init(params)
    for t, g in enumerate(gradients):
        theta = {name: jnp.asarray(path.theta[t - 1], dtype) if t else params[name] for name, path in exact.items()}
        updates, state = step(g, state, theta)
        for name, update in updates.items():
            wide = np.asarray(update).astype(exact[name].update.dtype)
            gap, size = np.abs(wide - exact[name].update[t]), np.abs(exact[name].update[t])
            worst = max(worst, float((gap / np.maximum(size, RATE)).max(initial=0.0)))
    return worst


def rows() -> Iterator[Row]:
    """The table, line by line; float64 comes last because x64 stays on from there."""
    for dtype in ("float32", "complex64", "bfloat16", "float16", "float64"):
        if dtype == "float64":
            jax.config.update("jax_enable_x64", True)
        params, gradients = stream(dtype)
        for setting in SETTINGS:
            ours, theirs = getattr(adamx, setting.optimizer), getattr(optax, setting.optimizer)
            rate = warm_up if setting.schedule else RATE
            ulps, promise = None, None
            if dtype not in ("bfloat16", "float16"):
                a, b = ours(rate, **setting.arguments), theirs(rate, **setting.arguments)
                report = compare(a, b, params, gradients)
                ulps, promise = (0.0 if report.equal else max(1.0, report.max_ulps)), 0.0
                if dtype == "complex64":
                    gap = max(max(leaf.absolute) for leaf in report.leaves if leaf.part == "update")
                    ulps, promise = gap / (RATE * 2**-23), COMPLEX_ULPS
            half = UNIT_ROUNDOFF.get(dtype, 0.0) * ROUNDINGS[setting.optimizer]
            yield Row(setting.name, dtype, ulps, promise, error_to_oracle(setting, dtype, ours), half or ERRORS[dtype])
        if dtype == "float32":
            yield Row(PRECISE.name, dtype, None, None, error_to_oracle(PRECISE, dtype, adamx.adam), PRECISE_ERROR)


def main() -> int:
    """Prints the table and returns the exit status."""
    print(f"adamx {adamx.__version__} against optax {optax.__version__} and the float64 oracle, jax {jax.__version__},")
    print(f"{STEPS} jitted steps on leaves of shapes {', '.join(map(str, SHAPES.values()))}\n")
    print(f"{'optimizer':<22}{'dtype':<11}{'to optax, ulps':>15}{'promised':>10}{'to oracle':>14}{'promised':>10}")
    failed = 0
    for row in rows():
        to_optax = ("-", "-") if row.ulps is None else (f"{row.ulps:.0f}", f"{row.max_ulps:.0f}")
        numbers = f"{to_optax[0]:>15}{to_optax[1]:>10}{row.error:>14.1e}{row.max_error:>10.1e}"
        print(f"{row.setting:<22}{row.dtype:<11}{numbers}{'' if row.holds else '  BROKEN'}", flush=True)
        failed += not row.holds
    print(f"\n{'every promise holds' if not failed else f'{failed} promises do not hold'}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
