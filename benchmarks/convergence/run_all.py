"""All experiments, and the page of their results, docs/experiments.md.

    python benchmarks/convergence/run_all.py [--quick] [--out DIR] [--only NAME ...] [--page-only]

With `--quick` or `--out`, numbers, figures and the page go to a folder of their own. `--only` runs some of them; the
page is always made from what is kept of all, and not at all if something is missing.
"""

import importlib
import sys

from page import write_page
from report import RESULTS, carry_out, headline, lines, options, where
from tqdm import tqdm

NAMES = (
    "logistic_digits",
    "logistic_sparse",
    "multilayer",
    "convolutional_network",
    "autoencoder",
    "online_counterexample",
    "online_rate",
    "trust_region",
    "scale_invariance",
    "schedules",
    "temporal_averaging",
    "family",
)


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument(
        "--page-only", action="store_true", help="run nothing, make the page from the numbers that are kept"
    )
    arguments = parser.parse_args()
    folder = where(arguments.quick, arguments.out)
    experiments = {name: importlib.import_module(name).EXPERIMENT for name in NAMES}
    print(headline())
    for name in tqdm([] if arguments.page_only else arguments.only, unit="experiment"):
        result = carry_out(experiments[name], arguments.quick, folder)
        tqdm.write(f"\n== {name}: {lines(result)}\n")
    missing = [name for name in NAMES if not (folder / f"convergence_{name}.json").exists()]
    if missing:
        print(f"no page: {', '.join(missing)} not yet run in {folder}")
        return int(arguments.page_only)
    page = (folder.parent if folder == RESULTS else folder) / "experiments.md"
    write_page(list(experiments.values()), folder, page)
    print(f"made {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
