"""The default run: every table that it thins is there, and something of it is left."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.thinned import SHARES, left_to_the_night

TESTS = Path(__file__).parent


@pytest.mark.parametrize(("file", "function"), [(file, name) for file, names in SHARES.items() for name in names])
def test_names_a_test(file, function):
    assert f"def {function}(" in (TESTS / file).read_text()


@pytest.mark.parametrize("entries", [1, 2, 5, 40])
def test_leaves_the_share_of_a_table_and_at_least_one(entries):
    for file, names in SHARES.items():
        for name, share in names.items():
            table = [SimpleNamespace(nodeid=f"tests/{file}::{name}[{i}]") for i in range(entries)]
            kept = entries - len(list(left_to_the_night(table)))
            assert max(1, entries // share) <= kept <= -(-entries // share)
