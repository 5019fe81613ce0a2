"""States in and out: checked after a restore, moved to another storage, exchanged with optax and torch."""

from adamx.interop.check import check_restored as check_restored
from adamx.interop.layout import flax_kernels as flax_kernels
from adamx.interop.layout import torch_layout as torch_layout
from adamx.interop.old import from_0_1 as from_0_1
from adamx.interop.optax import from_optax as from_optax
from adamx.interop.optax import to_optax as to_optax
from adamx.interop.storage import restore_as as restore_as
from adamx.interop.torch import from_torch as from_torch
from adamx.interop.torch import to_torch as to_torch
from adamx.interop.torch_params import params_from_torch as params_from_torch
from adamx.interop.torch_params import params_to_torch as params_to_torch
