"""The step in one pass: what it reads, to whom it gives the leaves, which library it calls."""

from tests.mutants.mutation import Mutation

MUTATIONS = [
    Mutation(
        "the kernel forgets the mask",
        "kernels/one_pass.py",
        "return treedef.flatten_up_to(jax.tree.map(everywhere, mask, params))",
        "return [True] * treedef.num_leaves",
        "kernels/test_parity.py::test_float32_is_within_2_ulp_of_xla",
    ),
    Mutation(
        "the kernel's schedule is a step ahead",
        "kernels/one_pass.py",
        "rate(jax.tree.leaves(before.others[-1])[0])",
        "rate(jax.tree.leaves(before.others[-1])[0] + 1)",
        "kernels/test_parity.py::test_a_long_run_ends_where_xla_ends",
    ),
    Mutation(
        "both weights are that of m",
        "kernels/one_pass.py",
        "((b1, count), (b2, count),",
        "((b1, count), (b1, count),",
        "kernels/test_parity.py::test_float32_is_within_2_ulp_of_xla",
    ),
    Mutation(
        "every leaf is alone",
        "kernels/one_pass.py",
        "len(leaves) == 1, waits",
        "True, waits",
        "kernels/test_parity.py",
    ),
    Mutation(
        "results go to another leaf",
        "kernels/call.py",
        "return [after(leaf) for leaf in leaves]",
        "return [after(leaf) for leaf in leaves][::-1]",
    ),
    Mutation(
        "a call takes what is sharded",
        "kernels/choice.py",
        'getattr(context, "num_devices", 2) == 1',
        "True",
        "test_sharding.py",
    ),
    Mutation(
        "a long step looks cheap", "kernels/step.py", "counts if rule.waits", "counts if rule", "kernels/test_call.py"
    ),
    Mutation("counts run away", "kernels/call.py", "return counts + least", "return counts + 1 + least"),
    Mutation("a call for a tiny leaf", "kernels/layout.py", "limit = TINY if", "limit = 0 if"),
    Mutation("long blocks are taken", "kernels/layout.py", "codec.block_size in BLOCKS", "True"),
    Mutation("a stale library is used", "kernels/native.py", "library.adamx_interface() != INTERFACE", "False"),
    Mutation(
        "all is left to XLA",
        "kernels/step.py",
        'if native.backend().name == "native" else plain',
        "if False else plain",
    ),
]
