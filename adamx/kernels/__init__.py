"""Adam's step in one pass over memory: native code on CPUs, chosen when JAX lowers, with XLA's own code beside it."""

from adamx.kernels.native import Backend as Backend
from adamx.kernels.native import backend as backend
