"""Many devices: where the state of an optimizer lives, and the step on shards of it."""

from adamx.sharding.report import LeafSharding as LeafSharding
from adamx.sharding.report import StateSharding as StateSharding
from adamx.sharding.report import state_sharding as state_sharding
