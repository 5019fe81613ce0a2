"""Adam's step in one pass over memory: native code on CPUs, chosen when JAX lowers, with XLA's own code beside it."""

from adamx.kernels.backend import backend as backend
from adamx.kernels.explain import Explanation as Explanation
from adamx.kernels.explain import LeafStep as LeafStep
from adamx.kernels.native import Backend as Backend
