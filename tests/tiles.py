"""What the tests of the Pallas kernel step: storages of moments, and what is behind a parameter."""

import adamx
from adamx.storage import Int8

CODED = Int8(128, 0)
INT8_MOMENTS = {"mu_dtype": CODED, "nu_dtype": CODED}
STORAGES = {
    "int8": INT8_MOMENTS,
    "bfloat16": {"mu_dtype": "bfloat16", "nu_dtype": "bfloat16"},
    "int8 v": {"mu_dtype": "bfloat16", "nu_dtype": CODED},
    "narrow int8": {"mu_dtype": Int8(64, 0, seed=3), "nu_dtype": Int8(64, 0)},
}
WRAPPERS = {
    "float32": (lambda tx: tx, "float32"),
    "bfloat16": (lambda tx: tx, "bfloat16"),
    "master weights": (adamx.with_master_weights, "bfloat16"),
    "stochastic rounding": (adamx.with_stochastic_rounding, "bfloat16"),
}
CASES = [*((storage, "float32") for storage in STORAGES), *(("int8", name) for name in WRAPPERS if name != "float32")]
