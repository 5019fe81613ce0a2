#!/usr/bin/env bash
# Builds the native kernel with warnings as errors and runs its test program: plain, under sanitizers, and a share of it
# compiled for AArch64 under an emulator, where both are installed (Debian: g++-aarch64-linux-gnu qemu-user).
# With --quick the sanitizers of addresses and undefined behaviour see a share too, and that of threads does not run.
# Takes CMake, and the XLA headers of the jaxlib of `python`. CXX names a compiler other than c++.
set -euo pipefail
quick=("$@")
cd "$(dirname "$0")/../adamx/kernels/cpu"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

check() { # COMPILER SANITIZERS TARGET OPTIONS...; the array `selftest` says how the test program runs
    local compiler=$1 sanitizers=$2 target=$3 folder="$work/$1-$2" start=$SECONDS
    shift 3
    cmake -S . -B "$folder" -DCMAKE_CXX_COMPILER="$compiler" -DADAMX_WERROR=ON -DADAMX_SELFTEST=ON \
        -DADAMX_SANITIZE="$sanitizers" "$@" >"$work/log" 2>&1 &&
        cmake --build "$folder" --parallel --target "$target" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    (cd "$folder" && timeout 120 "${selftest[@]}") >"$work/log" 2>&1 || { tail -n 40 "$work/log"; exit 1; }
    printf '%-8s %-18s %s (%ds)\n' "$compiler" "${sanitizers:-plain}" "$(tail -n 1 "$work/log")" $((SECONDS - start))
}

compilers=("${CXX:-c++}")
if command -v clang++ >/dev/null; then compilers+=(clang++); fi
for compiler in "${compilers[@]}"; do
    selftest=(./selftest)
    check "$compiler" "" all
    selftest=(./selftest "${quick[@]}")
    check "$compiler" address,undefined selftest
    [ -n "${quick[*]}" ] || check "$compiler" thread selftest
done

if command -v aarch64-linux-gnu-g++ >/dev/null && command -v qemu-aarch64 >/dev/null; then
    selftest=(qemu-aarch64 ./selftest --quick)
    check aarch64-linux-gnu-g++ "" selftest -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
        -DCMAKE_EXE_LINKER_FLAGS=-static
else
    echo "AArch64: NOT tested, for want of aarch64-linux-gnu-g++ and qemu-aarch64"
fi
