"""How fast memory can be streamed in place, in the pattern of Adam: p, m, v and g are read, p, m and v written.

XLA makes a loop over memory for each result, so that the gradient would be read three times: the loop is a small C
program, compiled when it is needed and forgotten with the process.
"""

import ctypes
import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

BYTES = 28
"""Read and written, for each parameter."""

SOURCE = r"""
#include <pthread.h>

typedef struct { float *p, *m, *v; const float *g; long n; } Part;

static void *stream(void *given) {
  Part part = *(Part *)given;
  float *restrict p = part.p, *restrict m = part.m, *restrict v = part.v;
  const float *restrict g = part.g;
  for (long i = 0; i < part.n; i++) {
    p[i] += g[i];
    m[i] += g[i];
    v[i] += g[i];
  }
  return 0;
}

void run(float *p, float *m, float *v, const float *g, long n, long threads) {
  pthread_t others[64];
  Part parts[64];
  for (long t = 0; t < threads; t++) {
    long from = n / threads * t, to = t == threads - 1 ? n : n / threads * (t + 1);
    parts[t] = (Part){p + from, m + from, v + from, g + from, to - from};
    if (t > 0) pthread_create(&others[t], 0, stream, &parts[t]);
  }
  stream(&parts[0]);
  for (long t = 1; t < threads; t++) pthread_join(others[t], 0);
}
"""

MOST_THREADS = 64


def compiler() -> str | None:
    """The system's C compiler, or None."""
    names = [os.environ.get("CC"), *(sysconfig.get_config_var("CC") or "").split()[:1], "cc", "gcc", "clang"]
    return next((found for name in names if name and (found := shutil.which(name))), None)


def compiled(command: str) -> Callable[..., None]:
    """`run` of the program above.

    Raises:
        subprocess.CalledProcessError: the compiler does not take it.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "stream.c", Path(folder) / "stream.so"
        source.write_text(SOURCE)
        flags = ["-O3", "-march=native", "-shared", "-fPIC", "-pthread"]
        subprocess.run([command, *flags, str(source), "-o", str(library)], check=True)
        run = ctypes.CDLL(str(library)).run
    run.restype = None
    run.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_long] * 2
    return run


def over(run: Callable[..., None], arrays: list[Any], threads: int) -> Callable[[], None]:
    """One pass over four NumPy arrays of float32, as a call."""
    pointers, elements = [array.ctypes.data for array in arrays], arrays[0].size

    def call() -> None:
        run(*pointers, elements, min(threads, MOST_THREADS))

    call.arrays = arrays  # they live as long as it does
    return call
