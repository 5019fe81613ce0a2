"""The paper's laws, each broken in one place."""

from tests.mutants.mutation import Mutation

MUTATIONS = [
    Mutation("m decays as v does", "core/moments.py", "ema(b1, m, g, ", "ema(b2, m, g, ", "laws/test_bias.py"),
    Mutation("one weight", "core/moments.py", "Weight(b2, ", "Weight(b1, ", "laws/test_trust_region.py"),
    Mutation("no root of v", "numerics.py", "= root(v", "= (v", "laws/test_signal_to_noise.py"),
    Mutation("ε is never 0", "numerics.py", "root) + eps\n", "root) + eps + 1e-12\n", "laws/test_invariance.py"),
    Mutation("b1 is larger", "core/moments.py", "b1, b2 = num", "b1, b2 = 0.1 + num", "laws/test_relations.py"),
    Mutation("v only grows", "core/moments.py", "mean(v, numerics", "(v + numerics", "laws/test_sparse_gradients.py"),
]
