"""The three stages, the arguments they check, and what compares them."""

from tests.mutants.mutation import Mutation

MUTATIONS = [
    Mutation("m is not corrected", "core/correction.py", "correct(moments.mu, moments.mu_weight)", "moments.mu"),
    Mutation("v is not corrected", "core/correction.py", "correct(moments.nu, moments.nu_weight)", "moments.nu"),
    Mutation("ε inside the root", "numerics.py", "root(v + eps_root) + eps\n", "root(v + eps_root + eps)\n"),
    Mutation("b2 is 0.99", "optimizers/adam.py", "b2: Scalar = 0.999", "b2: Scalar = 0.99", "optimizers/test_adamw.py"),
    Mutation("the count stands still", "core/moments.py", "increment(jnp.asarray(before.count))", "jnp.int32(1)"),
    Mutation("scaled by 1.01", "core/rate.py", "as_scalar(-alpha", "as_scalar(-1.01 * alpha"),
    Mutation("the schedule's count stands still", "core/rate.py", "increment(count)", "count"),
    Mutation(
        "v overflows",
        "core/moments.py",
        "numerics.saturate_second_moment(mean(v, numerics.square(g)), largest)",
        "mean(v, numerics.square(g))",
    ),
    Mutation("m is unbounded", "core/moments.py", "numerics.bound_first_moment(m, ", "(lambda x, _: x)(m, "),
    Mutation("the slope of the root is infinite", "numerics.py", "at_zero = y == 0", "at_zero = y < 0"),
    Mutation("precise averages are plain", "numerics.py", "if precise and decay >= 0.5:", "if False:"),
    Mutation("precise weights are plain", "numerics.py", "    if not precise:\n", "    if True:\n"),
    Mutation("averages in the dtype of the moment", "core/moments.py", "self.mu_codec.decode(mu, wide)", "mu", ""),
    Mutation("updates in compute precision", "core/correction.py", "u.astype(update_dtype(g, u))", "u"),
    Mutation("g² of a complex g", "numerics.py", "return g.real * g.real + g.imag * g.imag", "return (g * g).real"),
    Mutation(
        "nesterov does not look ahead", "optimizers/nadam.py", "count=increment(weight.count)", "count=weight.count"
    ),
    Mutation("decay adds nothing", "core/decay.py", "numerics.as_scalar(lam, dtype) * wide_p", "0 * wide_p"),
    Mutation("the mask is ignored", "core/decay.py", "tx if mask is None else", "tx if True else"),
    Mutation("shapes are not checked", "trees.py", "if shape != wanted:", "if False:"),
    Mutation("the message can be mapped over", "core/message.py", "raise TypeError(HINT)", "return [], None"),
    Mutation("a state of one's own in join", "core/composition.py", "if state != optax.EmptyState():", "if False:"),
    Mutation("half-precision betas pass", "hyperparameters.py", "if _is_half(dtype):", "if False:"),
    Mutation(
        "the oracle forgets ε",
        "testing/oracle.py",
        "+ epsilon_root) + epsilon",
        "+ epsilon_root)",
        "optimizers/test_adam.py",
    ),
    Mutation(
        "bits are not compared",
        "testing/report.py",
        "self.identical.append(same_bits(a, b))",
        "self.identical.append(True)",
    ),
    Mutation(
        "the step stands still",
        "core/moments.py",
        "before.step + 1 if averages.dithered",
        "before.step if averages.dithered",
        "core/test_state.py",
    ),
    Mutation(
        "precise sums are not dithered",
        "core/moments.py",
        "precise=self.precise, threshold=threshold)",
        "precise=self.precise)",
    ),
]
