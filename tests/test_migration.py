"""The tables of docs/migration.md for those who come from adamx 0.1: each cell is run."""

import operator
import re
from pathlib import Path

import jax.numpy as jnp
import optax
import pytest

import adamx
from adamx.storage import Float, Int8

SECTION = (Path(__file__).parents[1] / "docs" / "migration.md").read_text().partition("## From adamx 0.1\n")[2]
ROWS = re.findall(r"^\| `([^`]+)`[^|]*\| `([^`]+)` \| (warns|raises `\w+`) \|$", SECTION, re.MULTILINE)
MOVED = re.findall(r"^\| `(adamx\.\w+)` \| ((?:`\w+`(?:, )?)+) \|$", SECTION, re.MULTILINE)


def names():
    """What the cells take for granted."""
    params = {"body": jnp.ones((2, 64)), "head": jnp.ones(64)}
    tx, stage = adamx.adam(1e-3), adamx.scale_by_moments()
    moments, _ = stage.update(params, stage.init(params))
    here = {"params": params, "gradients": params, "labels": {name: name for name in params}, "v": params}
    shared = {"adamx": adamx, "optax": optax, "Float": Float, "Int8": Int8}
    return here | shared | {"tx": tx, "state": tx.init(params), "moments": moments}


def test_every_row_is_read():
    assert len(ROWS) + len(MOVED) + 2 * 2 == SECTION.count("\n|")


@pytest.mark.parametrize("row", ROWS, ids=operator.itemgetter(0))
def test_the_old_form_does_what_the_table_says_and_the_new_one_works(row):
    old, new, outcome = row
    kind = {"ValueError": ValueError, "TypeError": TypeError, "AttributeError": AttributeError}
    with (
        pytest.warns(DeprecationWarning, match="since 0.2")
        if outcome == "warns"
        else pytest.raises(kind[outcome.split("`")[1]])
    ):
        eval(old, names())
    result = eval(new, names())
    if isinstance(result, optax.GradientTransformation):
        result.init(names()["params"])


def test_the_table_of_moved_names_is_complete():
    moved = {name: module for module, cell in MOVED for name in re.findall(r"\w+", cell)}
    assert moved == adamx._MOVED
