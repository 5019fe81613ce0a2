#!/usr/bin/env bash
# The long runs, for the night: every combination, 2^31 + 5,000 updates, 1e7 steps at five decay rates, 10,000 trees.
set -euo pipefail
cd "$(dirname "$0")/.."
start=$SECONDS
pytest -m "slow or not slow" --ignore tests/soak
printf '%-10s %ds\n' everything $((SECONDS - start))
for part in saturation drift trees; do
    start=$SECONDS
    pytest -n 0 -m soak "tests/soak/test_$part.py"
    printf '%-10s %ds\n' "$part" $((SECONDS - start))
done
