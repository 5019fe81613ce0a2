"""What a section of `gpu.py` has found: on disk after each row, whatever happens in the next one."""

import dataclasses
import json
import os
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

WIDTH = 46
"""Of the first column, as rows are printed one by one."""
SKIPPED = "no time is left"

T = TypeVar("T")


def loaded(path: Path) -> dict[str, Any]:
    """The document of a run."""
    return json.loads(path.read_text())


def written(path: Path, document: Mapping[str, Any]) -> None:
    """Puts a document in the place of the last one, so that there is a whole one at any time."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(document, indent=1, default=as_json) + "\n")
    os.replace(new, path)


def as_json(x: Any) -> Any:
    return dataclasses.asdict(x) if dataclasses.is_dataclass(x) else str(x)


def as_text(x: Any) -> str:
    return f"{x:.4g}" if isinstance(x, float) else str(x)


class Record:
    """The rows of a section.

    Attributes:
        rows: as they are in the document.
    """

    def __init__(self, path: Path, section: str, until: float):
        self._path, self._until, self._document = path, until, loaded(path)
        self._section: dict[str, Any] = {"status": "running", "rows": []}
        self._document["sections"][section] = self._section
        self.rows: list[dict[str, Any]] = self._section["rows"]

    def left(self) -> float:
        """Seconds until the section has to end."""
        return self._until - time.time()

    def keep(self, case: str, **found: Any) -> None:
        """Adds a row that a table will show."""
        self.rows.append({"case": case, **found})
        self._write()

    def add(self, case: str, **found: Any) -> None:
        """Adds a row and prints it, without its lists and its traceback."""
        self.keep(case, **found)
        said = {key: x for key, x in found.items() if key != "traceback" and not isinstance(x, (list, dict))}
        cells = "  ".join(f"{key.replace('_', ' ')} {as_text(x)}" for key, x in said.items())
        print(f"{case.ljust(WIDTH)}  {cells}", flush=True)

    def found(self, case: str, find: Callable[[], T]) -> T | None:
        """What is found; None, and a row that says why, where there is an exception or no time is left."""
        if self.left() <= 0:
            self.add(case, skipped=SKIPPED)
            return None
        try:
            return find()
        except Exception as error:
            line = str(error).partition("\n")[0]
            self.add(case, error=f"{type(error).__name__}: {line}"[:300], traceback=traceback.format_exc())
            return None

    def attempt(self, case: str, find: Callable[[], Mapping[str, Any]]) -> None:
        """Adds what is found as a row."""
        found = self.found(case, find)
        if found is not None:
            self.add(case, **found)

    def ended(self, status: str, **more: Any) -> None:
        """Says how the section ended."""
        self._section.update(status=status, **more)
        self._write()

    def _write(self) -> None:
        written(self._path, self._document)
