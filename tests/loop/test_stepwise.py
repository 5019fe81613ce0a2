import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx

REASON = adamx.loop.StopReason


def test_no_more_batches_are_drawn_than_there_are_steps():
    drawn = []

    def batches():
        for i in range(7):
            drawn.append(i)
            yield {"target": np.float32(i)}

    def fun(x, batch):
        return (x - batch["target"]) ** 2

    found = adamx.minimize(fun, jnp.zeros([]), optax.sgd(0.5), max_steps=4, batches=batches())
    assert (found.stopped, found.steps, drawn) == (REASON.MAX_STEPS, 4, [0, 1, 2, 3])
    np.testing.assert_array_equal(found.history, [0, 1, 1, 1])
    found = adamx.minimize(fun, jnp.zeros([]), optax.sgd(0.5), max_steps=8, batches=batches())
    assert (found.stopped, found.steps, float(found.params)) == (REASON.NO_MORE_BATCHES, 7, 6.0)
    none = adamx.minimize(fun, jnp.ones([]), optax.sgd(0.5), max_steps=8, batches=[])
    assert (none.stopped, none.steps, none.history.shape, none.aux) == (REASON.NO_MORE_BATCHES, 0, (0,), None)


def test_the_callback_sees_each_step_and_stops_the_run():
    seen = []

    def callback(at):
        seen.append(at)
        return at.steps == 3

    tx = optax.sgd(0.25)
    found = adamx.minimize(lambda x: ((x - 1) ** 2, x), jnp.zeros([]), tx, max_steps=9, has_aux=True, callback=callback)
    assert (found.stopped, found.steps) == (REASON.CALLBACK, 3)
    assert [at.steps for at in seen] == [1, 2, 3]
    assert [float(at.value) for at in seen] == [1.0, 0.25, 0.0625] == list(found.history)
    assert [float(at.params) for at in seen] == [0.5, 0.75, 0.875]
    assert [float(at.aux) for at in seen] == [0.0, 0.5, 0.75]
    jax.tree.map(np.testing.assert_array_equal, seen[-1].state, found.state)
    with pytest.raises(TypeError, match="callback must return True to stop, False or None, got 0"):
        adamx.minimize(lambda x: x**2, jnp.ones([]), tx, max_steps=9, callback=lambda at: 0)


def test_aux_is_that_of_the_last_call_whatever_its_shape():
    found = adamx.minimize(
        lambda x, b: (jnp.sum(x * b), {"seen": b, "n": b.size, "nothing": None}),
        jnp.ones([]),
        optax.sgd(0.1),
        max_steps=3,
        has_aux=True,
        batches=[jnp.ones(4), jnp.ones(4), jnp.arange(2.0)],
    )
    np.testing.assert_array_equal(found.aux["seen"], [0.0, 1.0])
    assert (int(found.aux["n"]), found.aux["nothing"]) == (2, None)


class Bar:
    shown: tuple = ()

    def __init__(self, total, unit):
        Bar.shown = (total, unit)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        Bar.shown += ("closed",)

    def set_postfix(self, objective, refresh):
        Bar.shown += (objective,)

    def update(self):
        pass


def test_the_progress_bar_shows_the_objective(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", types.SimpleNamespace(tqdm=Bar))
    adamx.minimize(lambda x: x**2, jnp.float32(1.0), optax.sgd(0.25), max_steps=2, progress=True)
    assert Bar.shown == (2, "step", "1", "0.25", "closed")


def test_progress_names_the_extra_that_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match=r"progress=True needs tqdm: pip install 'adamx\[progress\]'"):
        adamx.minimize(lambda x: x**2, jnp.float32(1.0), optax.sgd(0.25), max_steps=2, progress=True)


@pytest.mark.parametrize("answer", [True, np.True_, jnp.bool_(True)])
def test_convergence_is_a_stronger_reason_than_the_callback(answer):
    for atol, stopped in [(0.5, REASON.CALLBACK), (2.0, REASON.CONVERGED)]:
        found = adamx.minimize(
            lambda x: x, jnp.zeros([]), optax.sgd(1.0), max_steps=1, atol=atol, callback=lambda at: answer
        )
        assert found.stopped == stopped
