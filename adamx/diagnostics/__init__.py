"""What Adam does to each parameter, measured while it trains."""

from adamx.diagnostics.diagnose import diagnose as diagnose
from adamx.diagnostics.measure import Measurement as Measurement
from adamx.diagnostics.plot import plot as plot
from adamx.diagnostics.probe import ProbeState as ProbeState
from adamx.diagnostics.probe import probe as probe
