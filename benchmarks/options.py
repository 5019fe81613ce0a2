"""What every program that times something may be asked for on its command line."""

import argparse
from pathlib import Path


def parser(about: str, *, quick: str) -> argparse.ArgumentParser:
    """With --quick and --json.

    Args:
        about: the program's docstring, whose first line is shown.
        quick: what `--quick` does.
    """
    made = argparse.ArgumentParser(description=about.splitlines()[0])
    made.add_argument("--quick", action="store_true", help=quick)
    made.add_argument("--json", type=Path, metavar="PATH", help="also write the numbers to a file")
    return made
