"""What a training run needs: guard, groups, checkpoints, migration, shards, diagnostics."""

from tests.mutants.mutation import Mutation

MUTATIONS = [
    Mutation("infinity is finite", "numerics.py", "return jnp.isfinite(largest", "return ~jnp.isnan(largest"),
    Mutation(
        "the imaginary part is not looked at",
        "numerics.py",
        "is_finite(x.real) & is_finite(x.imag)",
        "is_finite(x.real)",
    ),
    Mutation("one clean leaf is enough", "guard.py", "clean = jnp.all(", "clean = jnp.any("),
    Mutation(
        "skips in a row add up",
        "guard.py",
        "jnp.where(clean, 0, state.in_a_row + 1)",
        "state.in_a_row + ~clean",
        "test_guard.py::test_counts",
    ),
    Mutation(
        "one skip too many is fine",
        "guard.py",
        "in_a_row > limit",
        "in_a_row > limit + 1",
        "test_guard.py::test_counts",
    ),
    Mutation("a pattern may match nothing", "paths.py", "if names and not any(", "if False and not any("),
    Mutation("masks are upside down", "paths.py", "_found(checked, name) is None", "_found(checked, name) is not None"),
    Mutation("factors are in another order", "paths.py", "numbers[which]", "numbers[-1 - which]"),
    Mutation("a digest without dtypes", "digest.py", "repr((keys, dtype, values.shape))", "repr((keys, values.shape))"),
    Mutation("a digest without paths", "digest.py", "repr((keys, dtype, values.shape))", "repr((dtype, values.shape))"),
    Mutation("half of the bytes", "digest.py", ".view(np.uint8).data", ".view(np.uint8)[::2].tobytes()"),
    Mutation(
        "restored into another dtype", "interop/check.py", "if one != other:", 'if one != other and kind != "dtype":'
    ),
    Mutation(
        "storage moves one way",
        "interop/moments.py",
        "source.nu, True",
        "source.mu, True",
        "interop/test_storage.py::test_there_and_back",
    ),
    Mutation(
        "the maximum is lost",
        "interop/moments.py",
        "if source.nu_max else zeros",
        "if False else zeros",
        "interop/test_storage.py",
    ),
    Mutation(
        "torch counts are not compared",
        "interop/torch_format.py",
        "if len(set(counts.values())) > 1:",
        "if False:",
        "interop/test_torch.py",
    ),
    Mutation("moments are not split", "sharding/placement.py", "split = placed[i] + missing", "split = placed[i]"),
    Mutation("blocks are cut", "sharding/placement.py", "unit = block if", "unit = 1 if"),
    Mutation("a spec against the parameter", "sharding/placement.py", "and not _same(", "and not bool("),
    Mutation(
        "what moves is not placed",
        "sharding/region.py",
        "constrain(mesh, f(*args), specs)",
        "f(*args)",
        "sharding/test_transform.py::test_eight_devices_equal_one",
    ),
    Mutation(
        "measured in every step",
        "diagnostics/probe.py",
        "(moments.count - 1) % every == 0",
        "moments.count > 0",
        "diagnostics/test_probe.py::test_measures_at_the_first_step_and_then_every_so_often",
    ),
    Mutation("the paper's bound is 1", "diagnostics/measure.py", "(1 - b1) / jnp.sqrt(1 - b2)", "0.0"),
    Mutation("a whole unit is half of one", "diagnostics/measure.py", "(float(info.eps) / 2)", "float(info.eps)"),
    Mutation("the spike predictor looks at m", "diagnostics/measure.py", "_ratio(g, v_hat) ** 2", "ratio**2"),
]
