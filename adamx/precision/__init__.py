"""Half-precision parameters, trained as if they were float32."""

from adamx.precision.master_weights import DitheredMasterWeightsState as DitheredMasterWeightsState
from adamx.precision.master_weights import MasterWeightsState as MasterWeightsState
from adamx.precision.stochastic_rounding import StochasticRoundingState as StochasticRoundingState
