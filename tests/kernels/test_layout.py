import jax.numpy as jnp
import pytest

from adamx.core.averages import averages_of, of_squares
from adamx.core.leaf import MASTER, PLAIN, STOCHASTIC, Leaf, Rule
from adamx.kernels.layout import DITHERED, FLOAT32, INT4, INT8, NARROW, NEAREST, Form, arrays_of, calls, worthwhile
from adamx.kernels.layout import form_of as form_by_rule
from adamx.storage import Float, Int4, Int8
from adamx.storage.codec import Quantized


def form_of(leaf, codecs, behind, precise=False, b2=0.999):
    averages = averages_of(of_squares, 0.9, b2, None, None, precise).replace(mu_codec=codecs[0], nu_codec=codecs[1])
    return form_by_rule(leaf, Rule(averages, 1e-8, False, behind))


X, CODED = jnp.zeros((4, 64)), Int8(64, 0)
FULL = (Float(), Float())


def leaf(shape=(4, 64), g=jnp.float32, p=jnp.float32, mu=jnp.float32, nu=jnp.float32):
    return Leaf(jnp.zeros(shape, g), jnp.zeros(shape, p), None, jnp.zeros(shape, mu), jnp.zeros(shape, nu))


def coded(first, second):
    return Leaf(X, X, None, first.encode(X, jnp.zeros(X.shape, jnp.uint32), square=False), second.zeros(X, square=True))


def test_what_the_kernel_takes():
    assert form_of(leaf(), FULL, PLAIN) == Form(("float32", "float32"), PLAIN, (FLOAT32, 1), (FLOAT32, 1))
    half = form_of(leaf(g=jnp.bfloat16, p=jnp.bfloat16, mu=jnp.bfloat16), (Float("bfloat16", True), Float()), MASTER)
    assert half == Form(("bfloat16", "bfloat16"), MASTER, (DITHERED, 1), (FLOAT32, 1))
    nearest = (Float("bfloat16", stochastic=False), Float())
    assert form_of(leaf(mu=jnp.bfloat16), nearest, PLAIN).mu == (NEAREST, 1)
    assert form_of(leaf(shape=()), FULL, PLAIN) is not None


def test_a_master_weight_of_24_bits_is_another_form():
    half = leaf(g=jnp.bfloat16, p=jnp.bfloat16)
    wide, narrow = (half._replace(remainder=jnp.zeros((4, 64), dtype)) for dtype in (jnp.uint16, jnp.uint8))
    assert [form_of(one, FULL, MASTER).weights for one in (wide, narrow)] == [MASTER, NARROW]
    assert form_of(wide, FULL, MASTER).aliased == form_of(narrow, FULL, MASTER).aliased == 4


def test_float32_parameters_have_nothing_behind_them():
    assert form_of(leaf(), FULL, MASTER).weights == PLAIN
    assert form_of(leaf(), FULL, STOCHASTIC).weights == PLAIN


@pytest.mark.parametrize(
    ("arguments", "weights"),
    [
        ({"shape": (0, 3)}, PLAIN),
        ({"shape": (1,) * 9}, PLAIN),
        ({"g": jnp.complex64}, PLAIN),
        ({"p": jnp.complex64}, PLAIN),
        ({"p": jnp.float8_e4m3fn}, PLAIN),
        ({"mu": jnp.float16}, PLAIN),
        ({"nu": jnp.float8_e5m2}, PLAIN),
        ({"p": jnp.float16}, STOCHASTIC),
    ],
)
def test_what_is_left_to_xla(arguments, weights):
    assert form_of(leaf(**arguments), FULL, weights) is None


def test_codecs_of_others_are_left_to_xla():
    class Mine(Float):
        pass

    assert form_of(leaf(), (Mine(), Float()), PLAIN) is None


@pytest.mark.parametrize(
    ("blocks", "taken"), [((64, 64), True), ((32, 64), True), ((24, 64), False), ((2048, 64), False)]
)
def test_blocks_nest_and_are_not_long(blocks, taken):
    codecs = tuple(Int8(block, 0) for block in blocks)
    quantized = [Quantized(X, X)] * 2
    form = form_of(Leaf(X, X, None, *quantized), codecs, PLAIN)
    assert (form is not None) is taken
    assert form is None or (form.mu, form.nu) == ((INT8, blocks[0]), (INT8, blocks[1]))


def test_int4_in_rows_of_whole_bytes():
    def form(shape, first=None, second=None, behind=PLAIN):
        x, codecs = jnp.zeros(shape), (first or Int4(64, 0), second or Int4(32, 0))
        moments = [
            codec.zeros(x, jnp.float32, square=square) for codec, square in zip(codecs, (False, True), strict=True)
        ]
        return form_of(Leaf(x, x, None, *moments), codecs, behind)

    found = form((4, 64))
    assert (found.mu, found.nu, found.aliased) == ((INT4, 64), (INT4, 32), 5)
    assert form((4, 64), second=Int8(32, 0)).nu == (INT8, 32)
    assert form((4, 64), second=Float()).nu == (FLOAT32, 1)
    assert form((2, 3, 65)) is None
    assert form((65,)) is not None
    assert form((1, 65)) is not None
    assert form((4, 64), Int4(8, 0)) is None


def test_codes_of_another_codec_are_left_to_xla_which_says_so():
    eight = Int8(64, 0).zeros(X, jnp.float32, square=False)
    assert form_of(Leaf(X, X, None, eight, X), (Int4(64, 0), Float()), PLAIN) is None


def test_a_call_has_leaves_of_one_form_and_not_too_many():
    one, other = form_of(leaf(), FULL, PLAIN), form_of(leaf(g=jnp.bfloat16), FULL, PLAIN)
    grouped = calls([one, None, other, *[one] * 70])
    assert sorted(i for _, members in grouped for i in members) == [0, *range(2, 73)]
    assert all(form.aliased * len(members) <= 96 for form, members in grouped)
    assert [form for form, _ in grouped] == [one, one, one, other]


def test_arrays_of_a_leaf_in_the_order_of_the_kernel():
    quantized = Quantized("codes", "scales")
    assert arrays_of(Leaf("g", "p", "r", "mu", quantized)) == ["p", "r", "mu", *quantized]
    assert arrays_of(Leaf("g", "p", None, "mu", "nu")) == ["p", "mu", "nu"]


def test_float32_leaves_that_xla_steps_as_fast_are_left_to_it(monkeypatch):
    monkeypatch.undo()  # the fixture of this folder
    tiny, small, large, half = leaf((4, 4)), leaf((32, 32)), leaf((128, 128)), leaf((4, 4), p=jnp.bfloat16)
    of = {id(one): form_of(one, FULL, PLAIN) for one in (tiny, small, large, half)}

    def taken(*leaves, small=None):
        forms = worthwhile([of[id(one)] for one in leaves], list(leaves), small)
        return [form is not None for form in forms]

    assert taken(tiny, small, half) == [False, False, True]
    assert taken(tiny, small, large, half) == [False, True, True, True]
    assert taken(*[tiny] * 127, half) == [*[False] * 127, True]
    assert taken(*[tiny] * 128) == [True] * 128
    assert taken(tiny, tiny, half, small=(False, True, True)) == [True, False, True]  # shards of other leaves


def test_a_sum_that_is_dithered_is_left_to_xla():
    assert form_of(leaf(), FULL, PLAIN, precise=True, b2=0.999999) is None
    assert form_of(leaf(), FULL, PLAIN, precise=True) is not None
