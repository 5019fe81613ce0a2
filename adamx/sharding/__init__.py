"""Many devices: where the state of an optimizer lives, and the step on shards of it."""
