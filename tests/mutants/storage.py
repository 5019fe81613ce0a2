"""Codecs, dither, master weights, stochastic rounding, the footprint."""

from tests.mutants.mutation import Mutation

MUTATIONS = [
    Mutation("thresholds stand still", "storage/dither.py", "jnp.asarray(step, jnp.uint32) * stride", "stride"),
    Mutation(
        "neighbours begin together", "storage/dither.py", "neighbour * np.uint32(SPREAD)", "neighbour * np.uint32(0)"
    ),
    Mutation("both moments meet the same thresholds", "storage/dither.py", "return bits << 16", "return bits"),
    Mutation("shards begin at 0", "storage/dither.py", "offset = offset or ()", "offset = ()"),
    Mutation("bfloat16 is cut off", "storage/rounding.py", "up = (whole & 0xFFFF) > (bits >> 16)", "up = whole < 0"),
    Mutation(
        "a sum forgets what it drops", "storage/rounding.py", "jnp.where(total < 0, -dropped, dropped)", "0 * total"
    ),
    Mutation("float8 rounds down", "storage/rounding.py", "units - below > fraction(bits)", "units < below"),
    Mutation("v may be kept as 0", "storage/rounding.py", "(whole != 0) & (rounded == 0)", "whole != whole"),
    Mutation("no element stands apart", "storage/int8.py", "jnp.where(size >= top * (1 - ROUNDING), 0, size)", "size"),
    Mutation("others become the largest", "storage/int8.py", "(1 + ROUNDING) / second", "(1 - ROUNDING) / second"),
    Mutation(
        "small v is kept as 0",
        "storage/int8.py",
        "jnp.maximum(_round(z, bits, dtype), LOWEST[dtype.name])",
        "_round(z, bits, dtype)",
    ),
    Mutation("int8 rounds down", "storage/int8.py", "(~bits >> (32 - DIGITS)).astype(jnp.int32)", "0"),
    Mutation("int8 rounds up where it should not", "storage/int8.py", "(~bits >>", "(bits >>"),
    Mutation("the sign is lost", "storage/int8.py", "jnp.where(signed < 0, -size, size)", "size"),
    Mutation("a scale passes through infinity", "storage/floats.py", "largest * 2.0", "2 * largest * 2.0 ** -1 * 2.0"),
    Mutation("v rounds to infinity", "storage/floats.py", "float(jnp.finfo(stored.codes.dtype).eps)) *", "2.0**-23) *"),
    Mutation("nearest where it stalls", "storage/choice.py", "half_ulp > TRACKS * (1 - decay)", "False"),
    Mutation(
        "ties to even", "storage/split.py", "(bits + 0x8000) >> 16)", "(bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)"
    ),
    Mutation(
        "the dropped bits are forgotten",
        "precision/master_weights.py",
        "jnp.where(lands, lower, jnp.uint16(0))",
        "0 * lower",
    ),
    Mutation(
        "the state does not see what landed",
        "precision/master_weights.py",
        "jnp.where(lands, lower, jnp.uint16(0))",
        "lower",
        "precision/test_master_weights.py::test_what_lands_beside_its_target_has_no_remainder",
    ),
    Mutation(
        "a finite weight behind an infinite parameter",
        "precision/master_weights.py",
        " & jnp.isfinite(emitted)",
        "",
        "precision/test_master_weights.py::test_what_lands_beside_its_target_has_no_remainder",
    ),
    Mutation(
        "parameters round to nearest",
        "precision/stochastic_rounding.py",
        "sum_to_bfloat16(start, u, bits)",
        "(start + u).astype(jnp.bfloat16)",
    ),
    Mutation("bytes of v are not counted", "footprint.py", "            add(node.nu)\n", ""),
]
