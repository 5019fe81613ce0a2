"""Optimizers, one paper a file."""

from adamx.optimizers.adabelief import scale_by_belief as scale_by_belief
from adamx.optimizers.adabelief import scale_by_belief_moments as scale_by_belief_moments
from adamx.optimizers.adamax import divide_by_infinity_norm as divide_by_infinity_norm
from adamx.optimizers.adamax import scale_by_adamax as scale_by_adamax
from adamx.optimizers.adamax import scale_by_infinity_moments as scale_by_infinity_moments
from adamx.optimizers.ademamix import SlowMomentumState as SlowMomentumState
from adamx.optimizers.ademamix import ademamix_alpha as ademamix_alpha
from adamx.optimizers.ademamix import ademamix_b3 as ademamix_b3
from adamx.optimizers.ademamix import slow_momentum as slow_momentum
from adamx.optimizers.adopt import scale_by_adopt as scale_by_adopt
from adamx.optimizers.amsgrad import AmsgradState as AmsgradState
from adamx.optimizers.amsgrad import RunningMaxState as RunningMaxState
from adamx.optimizers.amsgrad import running_max as running_max
from adamx.optimizers.amsgrad import scale_by_amsgrad as scale_by_amsgrad
from adamx.optimizers.atan2 import atan2_correction as atan2_correction
from adamx.optimizers.cautious import cautious as cautious
from adamx.optimizers.hyperball import scale_by_hyperball as scale_by_hyperball
from adamx.optimizers.mars import PreviousGradientState as PreviousGradientState
from adamx.optimizers.mars import reduce_variance as reduce_variance
from adamx.optimizers.radam import rectified_bias_correction as rectified_bias_correction
from adamx.optimizers.radam import scale_by_radam as scale_by_radam
from adamx.optimizers.stable_adamw import clip_by_second_moment as clip_by_second_moment
