"""How a moment is held between steps."""

from adamx.storage.floats import Float as Float
from adamx.storage.floats import moment_codec as moment_codec
