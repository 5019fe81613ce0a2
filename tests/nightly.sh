#!/usr/bin/env bash
# All tests, all mutants, every benchmark as far as it starts, and the long runs: 2^31 + 5,000 updates, 1e7 steps at five decay rates, 10,000 trees.
set -euo pipefail
cd "$(dirname "$0")/.."
timed() { # COMMAND: runs it and says how long it took
    local start=$SECONDS
    "$@"
    printf '%s: %ds\n' "$*" $((SECONDS - start))
}
timed pytest tests adamx
timed python -m tests.mutations
timed bash tests/native.sh
for program in convergence/run_all diagnostics low_precision_training compile_time step_time training_step loop_helpers \
    fused_or_composed leaf_sizes bandwidth dispatch gpu memory codecs; do
    timed python "benchmarks/$program.py" --quick
done
# what XLA makes of a step for a TPU and, where its plugin is installed, for a GPU: 2 says that no compiler is there
timed python benchmarks/compiled.py || [ $? -eq 2 ]
for part in saturation drift trees; do
    timed pytest -n 0 -m soak "tests/soak/test_$part.py"
done
