import jax
import pytest

from adamx.kernels.pallas.compilers import PLATFORMS, options_for, scalars_for
from adamx.kernels.pallas.view import view_of


@pytest.mark.parametrize(("rows", "warps"), [(1, 1), (3, 1), (4, 2), (4096, 8)])
def test_small_tiles_have_few_warps(rows, warps):
    assert options_for("cuda", view_of((rows, 128), 128, "cuda"))["compiler_params"].num_warps == warps


def test_the_environment_asks_for_other_warps(monkeypatch):
    monkeypatch.setenv("ADAMX_GPU_TILES", "1024,128,2")
    params = options_for("cuda", view_of((64, 128), 128, "cuda"))["compiler_params"]
    assert (params.num_warps, params.num_stages) == (8, 2)


def test_on_a_tpu_tiles_side_by_side_come_one_after_another():
    semantics = options_for("tpu", view_of((64, 128), 128, "tpu"))["compiler_params"].dimension_semantics
    assert [str(s).rpartition(".")[2].lower() for s in semantics] == ["parallel", "parallel", "arbitrary"]


def test_scalars_lie_in_scalar_memory_of_a_tpu():
    assert "smem" in str(scalars_for("tpu").memory_space).lower()
    assert scalars_for("rocm").memory_space is None


def test_where_the_kernel_is_known_to_compile():
    assert {"cuda", "rocm"} <= set(PLATFORMS)
    assert ("tpu" in PLATFORMS) is (jax.__version_info__ >= (0, 10, 2))
