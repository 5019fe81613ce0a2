"""minimize: when it ends and what it ends with."""

from tests.mutants.mutation import Mutation

MUTATIONS = [
    Mutation("a change of atol converges", "loop/run.py", "new[0]) < atol", "new[0]) <= atol"),
    Mutation("faulty gradients converge", "loop/run.py", " & _all_finite(gradients)", ""),
    Mutation("a NaN does not end it", "loop/run.py", "jnp.isfinite(value) & ", "", "loop/test_minimize.py"),
    Mutation("complex uphill", "loop/run.py", "(jnp.conj, g", "(jnp.asarray, g", "loop/test_minimize.py"),
    Mutation("a deaf loop", "loop/stepwise.py", "StopReason.CALLBACK if asked", "GOING_ON if asked"),
    Mutation("a batch too many", "loop/stepwise.py", "islice(feed, max_steps)", "islice(feed, max_steps + 1)"),
    Mutation("any objective", "loop/objective.py", "if value.shape or not", "if not"),
]
