"""For equivalence tests: the paper's algorithm in float64, and a comparison of two transformations, step by step."""

from adamx.testing.comparison import assert_equivalent as assert_equivalent
from adamx.testing.comparison import compare as compare
from adamx.testing.oracle import Trajectory as Trajectory
from adamx.testing.oracle import reference_adam as reference_adam
from adamx.testing.report import LeafDifference as LeafDifference
from adamx.testing.report import Report as Report
