"""The mutants of `mutants.toml`."""

import tomllib
from pathlib import Path
from typing import NamedTuple


class Mutation(NamedTuple):
    """A line of a file, what it becomes, and the tests that must fail then; "": those that mirror it."""

    what: str
    file: str
    old: str
    new: str
    tests: str = ""

    @property
    def must_fail(self) -> str:
        """The tests that must see it, below tests/."""
        parts = Path(self.file)
        return self.tests or str(parts.with_name(f"test_{parts.name}"))


PARTS = [
    [Mutation(*each) for each in part]
    for part in tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")).values()
]
MUTATIONS = [each for part in PARTS for each in part]
QUICK = MUTATIONS[::15]
