"""What a mutant is."""

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
