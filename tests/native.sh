#!/usr/bin/env bash
# Builds the native kernel with warnings as errors and runs its test program: plain, and under sanitizers.
# Takes CMake, and the XLA headers of the jaxlib of `python`. CXX names a compiler other than c++.
set -euo pipefail
cd "$(dirname "$0")/../adamx/kernels/cpu"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

check() { # COMPILER SANITIZERS TARGETS...
    local compiler=$1 sanitizers=$2 folder="$work/$1-$2" start=$SECONDS
    shift 2
    cmake -S . -B "$folder" -DCMAKE_CXX_COMPILER="$compiler" -DADAMX_WERROR=ON -DADAMX_SELFTEST=ON \
        -DADAMX_SANITIZE="$sanitizers" >"$work/log" 2>&1 &&
        cmake --build "$folder" --parallel --target "$@" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    timeout 120 "$folder/selftest" >"$work/log" 2>&1 || { tail -n 40 "$work/log"; exit 1; }
    printf '%-8s %-18s %s (%ds)\n' "$compiler" "${sanitizers:-plain}" "$(tail -n 1 "$work/log")" $((SECONDS - start))
}

compilers=("${CXX:-c++}")
if command -v clang++ >/dev/null; then compilers+=(clang++); fi
for compiler in "${compilers[@]}"; do
    check "$compiler" "" all
    check "$compiler" address,undefined selftest
    check "$compiler" thread selftest
done
