"""A section for the dry run: a row that raises, and then a program that never ends."""

import time

from on_gpu.record import Record


def run(record: Record, *, quick: bool, peer_python: str) -> None:
    record.attempt("a row that raises", lambda: {"quotient": 1 / 0})
    record.add("the row after it", here=True)
    time.sleep(3600)
