"""Adam for JAX, as three optax transformations that read like the paper."""

from adamx.core.composition import join as join
from adamx.core.correction import bias_correction as bias_correction
from adamx.core.correction import uncorrected as uncorrected
from adamx.core.decay import add_decayed_weights as add_decayed_weights
from adamx.core.message import Moments as Moments
from adamx.core.moments import on_first_moment as on_first_moment
from adamx.core.moments import scale_by_moments as scale_by_moments
from adamx.core.rate import scale_by_lr as scale_by_lr
from adamx.core.state import DitheredMomentsState as DitheredMomentsState
from adamx.core.state import MomentsState as MomentsState
from adamx.footprint import StateBytes as StateBytes
from adamx.footprint import state_bytes as state_bytes
from adamx.kernels.fused import fused_adam as fused_adam
from adamx.kernels.fused import fused_adamw as fused_adamw
from adamx.kernels.step import step as step
from adamx.optimizers.adam import adam as adam
from adamx.optimizers.adam import scale_by_adam as scale_by_adam
from adamx.optimizers.adamw import adamw as adamw
from adamx.optimizers.nadam import nesterov as nesterov
from adamx.precision.master_weights import MasterWeightsState as MasterWeightsState
from adamx.precision.master_weights import master_params as master_params
from adamx.precision.master_weights import with_master_weights as with_master_weights
from adamx.precision.stochastic_rounding import StochasticRoundingState as StochasticRoundingState
from adamx.precision.stochastic_rounding import with_stochastic_rounding as with_stochastic_rounding

__version__ = "0.1.0"
