import jax
import jax.numpy as jnp

from adamx.loop.outcome import MinimizeResult, StopReason


def test_no_reason_is_zero_so_that_zero_means_going_on():
    assert [int(reason) for reason in StopReason] == [1, 2, 3, 4, 5]


def test_a_result_passes_through_jit():
    result = MinimizeResult({"x": jnp.ones(2)}, (), 3, StopReason.CONVERGED, jnp.zeros(3))
    found = jax.jit(lambda r: r._replace(steps=r.steps + 1))(result)
    assert StopReason(int(found.stopped)) is StopReason.CONVERGED
    assert (int(found.steps), found.aux) == (4, None)
