"""The mutants that `python -m tests.mutations` makes: each still finds its line and its tests."""

from collections import Counter
from pathlib import Path

import pytest

from tests.mutants import MUTATIONS

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.what)
def test_its_line_and_its_tests_are_there(mutation):
    source = (ROOT / "adamx" / mutation.file).read_text()
    assert mutation.old in source, f"{mutation.file} has no {mutation.old!r} any more"
    assert mutation.new != mutation.old
    file, _, test = mutation.must_fail.partition("::")
    assert f"def {test.partition('[')[0]}" in (ROOT / "tests" / file).read_text()


def test_names_differ():
    assert not [what for what, n in Counter(m.what for m in MUTATIONS).items() if n > 1]
