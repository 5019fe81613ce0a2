import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from adamx.diagnostics.measure import MEASURED, UNKNOWN, half_ulp, measure, paper_bound

ONE = (jnp.float32(1), jnp.float32(1))


def measured(g, m, v, p, alpha=1.0, weights=ONE, bound=1.0):
    arrays = (jnp.asarray(x, jnp.float32) if x is not None and not hasattr(x, "dtype") else x for x in (g, m, v, p))
    return dict(zip(MEASURED, np.asarray(measure(*arrays, weights, alpha, jnp.float32(bound))), strict=True))


@pytest.mark.slow
def test_against_numpy_in_float64():
    random = np.random.default_rng(0)
    g, m, p = (random.standard_normal((20, 30)) for _ in range(3))
    v = random.random((20, 30))
    found = measured(*(x.astype(np.float32) for x in (g, m, v, p)), 1e-2, (jnp.float32(0.5), jnp.float32(0.25)), 3.0)
    m_hat, v_hat = m / 0.5, v / 0.25
    ratio = np.abs(m_hat) / np.sqrt(v_hat)
    expected = {
        "signal_to_noise": ratio.mean(),
        "above_rate": (ratio > 1).mean(),
        "above_bound": (ratio > 3).mean(),
        "spike": np.sqrt((g**2 / v_hat).mean()),
        "cosine": (g * m).sum() / np.sqrt((g**2).sum() * (m**2).sum()),
        "update_ratio": 1e-2 * np.sqrt((ratio**2).sum() / (p**2).sum()),
        "stalled": 0.0,
    }
    assert list(found) == list(expected)
    # 600 terms of one sign, summed in float32 by halves, lose a few units; the cosine's cancel to a twentieth.
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=2e-5)


@pytest.mark.slow
def test_what_never_had_a_gradient_counts_as_zero():
    found = measured([0.0, 2.0], [0.0, 2.0], [0.0, 4.0], [1.0, 1.0])
    assert (found["signal_to_noise"], found["cosine"], found["stalled"]) == (0.5, 1.0, 0.0)
    nothing = measured([0.0], [0.0], [0.0], [0.0])
    assert set(nothing.values()) == {0.0}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float8_e4m3fn"])
def test_half_a_unit_in_the_last_place(dtype):
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    p = np.asarray([1.0, 1.5, 3.0, 0.1, 200.0, -7.0, 2.0**-6], kind)
    wide = np.abs(p.astype(np.float64))
    spacing = float(jnp.finfo(kind).eps) * 2.0 ** np.floor(np.log2(wide))
    np.testing.assert_array_equal(half_ulp(jnp.asarray(p)), spacing / 2)


@pytest.mark.slow
def test_an_update_below_half_a_unit_does_not_move_its_parameter():
    p = jnp.asarray([1.0, 1.0, 256.0, 0.001], jnp.bfloat16)  # their units: 1/128, 2, 2^-17
    found = measured([1.0] * 4, [1.0, 0.0, 1.0, 1.0], [1.0] * 4, p, 1e-3)
    assert found["stalled"] == 0.5  # the first and the third; the second has no update
    moved = p - jnp.asarray(1e-3, jnp.bfloat16)
    np.testing.assert_array_equal(np.asarray(moved == p), [True, True, True, False])


def test_without_parameters_or_rate():
    found = measured([1.0], [1.0], [1.0], None)
    assert found["update_ratio"] == found["stalled"] == UNKNOWN
    assert found["spike"] == 1.0


def test_huge_and_complex_and_empty():
    huge = measured([1e30, 1e30], [1e30, 1e30], [3e38, 3e38], [1e30, 1e30])
    assert np.isfinite(list(huge.values())).all()
    assert huge["cosine"] == pytest.approx(1, rel=1e-6)
    i = jnp.asarray([1j, 1.0])
    assert measured(i, i, jnp.ones(2), i)["cosine"] == pytest.approx(1, rel=1e-6)
    assert set(measured(jnp.zeros(0), jnp.zeros(0), jnp.zeros(0), jnp.zeros(0)).values()) == {0.0}


def test_the_papers_bound():
    assert float(paper_bound(0.9, 0.999)) == pytest.approx(0.1 / 0.001**0.5, rel=1e-4)
    assert float(paper_bound(0.9, 0.99)) == pytest.approx(1, rel=1e-6)
    assert float(paper_bound(0.99, 0.999)) == 1.0


@pytest.mark.slow
def test_a_nan_in_a_large_leaf_is_seen():
    x = np.ones(10_000, np.float32)
    faulty = np.where(np.arange(10_000) == 5_000, np.float32(np.nan), x)
    assert np.isnan([measured(x, faulty, x, x)[name] for name in ("signal_to_noise", "update_ratio", "stalled")]).all()
