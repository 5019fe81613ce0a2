"""Algorithm 1 as a whole: its loop and what ends it."""

from adamx.loop.outcome import MinimizeResult as MinimizeResult
from adamx.loop.outcome import MinimizeStep as MinimizeStep
from adamx.loop.outcome import StopReason as StopReason
