"""Adam for JAX, as three optax transformations that read like the paper."""

import importlib
import warnings
from typing import Any

from adamx import diagnostics as diagnostics
from adamx import digest as digest
from adamx import interop as interop
from adamx import kernels as kernels
from adamx import optimizers as optimizers
from adamx import sharding as sharding
from adamx import storage as storage
from adamx.accumulation import accumulate as accumulate
from adamx.clip import clip_by_global_norm as clip_by_global_norm
from adamx.core.chain import chain as chain
from adamx.core.chain import join as join
from adamx.core.decay import add_decayed_weights as add_decayed_weights
from adamx.core.decay import decay_weights as decay_weights
from adamx.core.message import Message as Message
from adamx.core.message import Moments as Moments
from adamx.core.moments import on_first_moment as on_first_moment
from adamx.core.moments import scale_by_moments as scale_by_moments
from adamx.core.rate import scale_by_lr as scale_by_lr
from adamx.core.relative_decay import relative_decay as relative_decay
from adamx.core.stages import between as between
from adamx.core.stages import bias_correction as bias_correction
from adamx.core.stages import quotient as quotient
from adamx.core.stages import uncorrected as uncorrected
from adamx.core.state import MomentsState as MomentsState
from adamx.deprecated import fused_adam as fused_adam
from adamx.deprecated import fused_adamw as fused_adamw
from adamx.ema import ema_params as ema_params
from adamx.ema import with_ema as with_ema
from adamx.footprint import state_bytes as state_bytes
from adamx.guard import check_skips as check_skips
from adamx.guard import skip_nonfinite as skip_nonfinite
from adamx.half_life import beta2_for as beta2_for
from adamx.host import on_host as on_host
from adamx.injection import inject_hyperparams as inject_hyperparams
from adamx.kernels.explain import explain as explain
from adamx.kernels.step import step as step
from adamx.loop.minimize import minimize as minimize
from adamx.metrics import with_norms as with_norms
from adamx.optimizers.adabelief import adabelief as adabelief
from adamx.optimizers.adam import adam as adam
from adamx.optimizers.adam import scale_by_adam as scale_by_adam
from adamx.optimizers.adamax import adamax as adamax
from adamx.optimizers.adamax import adamaxw as adamaxw
from adamx.optimizers.adamw import adamw as adamw
from adamx.optimizers.ademamix import ademamix as ademamix
from adamx.optimizers.adopt import adopt as adopt
from adamx.optimizers.amsgrad import amsgrad as amsgrad
from adamx.optimizers.atan2 import adam_atan2 as adam_atan2
from adamx.optimizers.atan2 import adamw_atan2 as adamw_atan2
from adamx.optimizers.cautious import cautious_adamw as cautious_adamw
from adamx.optimizers.mars import mars as mars
from adamx.optimizers.nadam import nadam as nadam
from adamx.optimizers.nadam import nadamw as nadamw
from adamx.optimizers.nesterov import nesterov as nesterov
from adamx.optimizers.radam import radam as radam
from adamx.optimizers.stable_adamw import stable_adamw as stable_adamw
from adamx.paths import match as match
from adamx.paths import not_matching as not_matching
from adamx.paths import scale_by_path as scale_by_path
from adamx.precision.master_params import master_params as master_params
from adamx.precision.master_params import set_master_params as set_master_params
from adamx.precision.master_weights import with_master_weights as with_master_weights
from adamx.precision.stochastic_rounding import with_stochastic_rounding as with_stochastic_rounding
from adamx.routing import route as route
from adamx.sharding.transform import shard_state as shard_state
from adamx.spikes import skip_spikes as skip_spikes

__version__ = "0.2.0"

_MOVED = {
    "AmsgradState": "adamx.optimizers",
    "Explanation": "adamx.kernels",
    "LeafSharding": "adamx.sharding",
    "MasterWeightsState": "adamx.precision",
    "Measurement": "adamx.diagnostics",
    "MinimizeResult": "adamx.loop",
    "MinimizeStep": "adamx.loop",
    "PreviousGradientState": "adamx.optimizers",
    "ProbeState": "adamx.diagnostics",
    "RunningMaxState": "adamx.optimizers",
    "SkipNonfiniteState": "adamx.guard",
    "SlowMomentumState": "adamx.optimizers",
    "StateBytes": "adamx.footprint",
    "StateSharding": "adamx.sharding",
    "StochasticRoundingState": "adamx.precision",
    "StopReason": "adamx.loop",
    "ademamix_alpha": "adamx.optimizers",
    "ademamix_b3": "adamx.optimizers",
    "atan2_correction": "adamx.optimizers",
    "cautious": "adamx.optimizers",
    "check_restored": "adamx.interop",
    "clip_by_second_moment": "adamx.optimizers",
    "diagnose": "adamx.diagnostics",
    "divide_by_infinity_norm": "adamx.optimizers",
    "fingerprint": "adamx.digest",
    "from_optax": "adamx.interop",
    "from_torch": "adamx.interop",
    "params_from_torch": "adamx.interop",
    "params_to_torch": "adamx.interop",
    "plot": "adamx.diagnostics",
    "probe": "adamx.diagnostics",
    "rectified_bias_correction": "adamx.optimizers",
    "reduce_variance": "adamx.optimizers",
    "restore_as": "adamx.interop",
    "running_max": "adamx.optimizers",
    "scale_by_adamax": "adamx.optimizers",
    "scale_by_adopt": "adamx.optimizers",
    "scale_by_amsgrad": "adamx.optimizers",
    "scale_by_belief": "adamx.optimizers",
    "scale_by_belief_moments": "adamx.optimizers",
    "scale_by_infinity_moments": "adamx.optimizers",
    "scale_by_radam": "adamx.optimizers",
    "slow_momentum": "adamx.optimizers",
    "state_sharding": "adamx.sharding",
    "to_optax": "adamx.interop",
    "to_torch": "adamx.interop",
}
"""Names that stood here in 0.1, and the modules where they are now."""


def __getattr__(name: str) -> Any:
    if name in ("flax", "testing"):  # imported when it is asked for: Flax need not be there
        return importlib.import_module(f"adamx.{name}")
    if name not in _MOVED:
        raise AttributeError(f"module 'adamx' has no attribute {name!r}")
    message = f"adamx.{name} is {_MOVED[name]}.{name} since 0.2; the old name goes with the next release"
    warnings.warn(message, DeprecationWarning, stacklevel=2)
    return getattr(importlib.import_module(_MOVED[name]), name)
