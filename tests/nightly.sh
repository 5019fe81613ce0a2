#!/usr/bin/env bash
# All tests, all mutants, and the long runs: 2^31 + 5,000 updates, 1e7 steps at five decay rates, 10,000 trees.
set -euo pipefail
cd "$(dirname "$0")/.."
timed() { # COMMAND: runs it and says how long it took
    local start=$SECONDS
    "$@"
    printf '%s: %ds\n' "$*" $((SECONDS - start))
}
timed pytest tests adamx
timed python -m tests.mutations
for part in saturation drift trees; do
    timed pytest -n 0 -m soak "tests/soak/test_$part.py"
done
