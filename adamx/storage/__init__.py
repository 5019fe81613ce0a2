"""How a moment is held between steps."""

from adamx.storage.codec import Codec as Codec
from adamx.storage.codec import Quantized as Quantized
from adamx.storage.codec import Resolution as Resolution
from adamx.storage.dither import shard_offsets as shard_offsets
from adamx.storage.floats import Float as Float
from adamx.storage.int4 import Int4 as Int4
from adamx.storage.int8 import Int8 as Int8
