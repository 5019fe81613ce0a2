"""States in and out: checked after a restore, moved to another storage, exchanged with optax and torch."""

from adamx.interop.layout import flax_kernels as flax_kernels
from adamx.interop.layout import torch_layout as torch_layout
from adamx.interop.old import from_0_1 as from_0_1
