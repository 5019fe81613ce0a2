"""The numbers on the pages are those that the benchmarks kept in `docs/results`."""

import json
import re
import statistics
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def page(name):
    return (DOCS / name).read_text()


def results(name):
    """The numbers of a program, kept in `docs/results`: the one source of tables and figures."""
    return json.loads((DOCS / "results" / f"{name}.json").read_text())


def ratios(name):
    return {row["case"]: {key: x["median"] for key, x in row["ratio"].items()} for row in results(name)["rows"]}


def rows_of(name, header):
    """The rows of the Markdown tables whose header begins so: the first cell, and the others by the header's."""
    for table in re.findall(rf"^({re.escape(header)}.*\n)\|[-| ]+\|\n((?:\|.*\n)+)", page(name), re.MULTILINE):
        names, *rows = (
            [x.strip() for x in line.strip()[1:-1].split("|")] for line in (table[0] + table[1]).splitlines()
        )
        yield [(first, dict(zip(names[1:], cells, strict=True))) for first, *cells in rows]


def test_times_are_those_of_the_results():
    """`harness.table` prints columns at least two blanks apart; loop_helpers.py keeps no results."""
    kept = "training_step", "training_step_avx512", "step_time", "step_time_avx2"
    known = list(map(ratios, kept))
    for block in re.findall(r"^time over optax's.*\n(?:[^`\n].*\n)+", page("performance.md"), re.MULTILINE):
        header, _, *rows = (re.split(r"\s{2,}", line.strip()) for line in block.splitlines())
        for case, *cells in rows:
            shown = dict(zip(header[1:], cells, strict=True))
            for table in [table for table in known if case in table][:1]:
                for name, ratio in table.pop(case).items():
                    assert name not in shown or shown[name] == f"{ratio:.3f}", (case, name)
    assert not any(known), f"not on the page: {known}"


def test_promised_times_are_those_of_the_results():
    large, gpt2 = (ratios("training_step")[case] for case in ("1.6e+07 in 1 leaf", "GPT-2 small"))
    said = page("guarantees.md")
    assert f"takes {large['float32 moments']:.2f} of optax's time at 16 million parameters" in said
    assert f"and {gpt2['float32 moments']:.2f} on GPT-2 small" in said
    assert f"{large['bfloat16 moments']:.2f} and {gpt2['bfloat16 moments']:.2f} with bfloat16 moments" in said


def test_the_comparison_is_that_of_the_results():
    times, moments = ratios("step_time"), {"adamx": "fused", "adamx, bfloat16 moments": "fused bf16"}
    (rows,) = rows_of("comparison.md", "| | adamx | adamx, bfloat16 moments |")
    for case, cells in rows:
        for name, cell in cells.items():
            key = "fused int8" if "Int8" in name else moments.get(name, name)
            assert cell == f"{times[f'adam, {case}'][key]:.2f}", (case, name)
    scores = results("codecs")["scores"][0]
    (rows,) = rows_of("comparison.md", "| | N(0,1) |")
    for codec, cells in rows:
        for stream, cell in cells.items():
            score = scores[codec][stream]
            assert cell == f"{score['factor']:.3f}, {100 * score['median']:.1f} %", (codec, stream)


def test_scores_and_bytes_of_storages_are_those_of_the_results():
    tables = [dict(rows) for rows in rows_of("low-precision.md", "| codec |")]
    for shown, scores in zip(tables, results("codecs")["scores"], strict=True):
        for codec, streams in scores.items():
            for stream, x in streams.items():
                cell = f"{x['factor']:.3f} / {x['median']:.4f} / {x['percentile99']:.3f} / {x['largest']:.2f}"
                assert shown[codec][stream] == cell, (codec, stream)
    (rows,) = rows_of("low-precision.md", "| parameters, moments |")
    found = results("memory")["bytes"]
    assert [name for name, _ in rows] == list(found)
    for name, cells in rows:
        x = found[name]
        live = x["parameters"] + x["gradients"] + x["state"]
        assert (cells["state"], cells["live"], cells["step"]) == tuple(
            f"{bytes:.3f}" for bytes in (x["state"], live, x["temporaries"])
        ), name


def test_losses_in_low_precision_are_those_of_the_results():
    for task, found in results("low_precision_training")["losses"].items():
        (rows,) = rows_of("low-precision.md", f"| {task} | loss |")
        assert [name for name, _ in rows] == list(found)
        final = {name: losses[-1] for name, losses in found.items()}
        for name, cells in rows:
            mean = statistics.mean(final[name])
            assert cells["loss"] == f"{mean:.4f} \u00b1 {statistics.stdev(final[name]):.4f}", (task, name)
            assert cells["to float32"] == f"{100 * (mean / statistics.mean(final['float32']) - 1):+.2f} %", (task, name)


def test_bytes_of_compiled_steps_are_those_of_the_results():
    found, columns = results("compiled"), ("H100 composed", "H100 kernel", "v5e composed", "v5e kernel")
    cases = {
        "bfloat16, stochastic rounding of bfloat16 parameters": "stochastic rounding, 4096x4096",
        "float32, master weights": "master weights, 4096x4096",
        "bfloat16, master weights": "master weights, bfloat16, 4096x4096",
        "Int8, 8x4096x14336": "Int8, 8x4096x14336",
        "Int8, 131072x128": "Int8, 131072x128",
        "Int8, 16x1048576": "Int8, 16x1048576",
        "Int8, 16777216": "Int8, 16777216",
    }
    (rows,) = rows_of("performance.md", "| moments, 4096")
    for moments, cells in rows:
        name = moments.replace(" \u00d7 ", "x")
        for column in columns:
            device, _, how = column.partition(" ")
            x = found[f"{device}, {cases.get(name, f'{name}, 4096x4096')}, {how}"]
            bytes, _, temporaries = cells[column].partition(" ")
            assert bytes == f"{x['bytes']:.{len(bytes.partition('.')[2])}f}", (moments, column)
            assert temporaries == (f"({x['temporaries']:.1f})" if x["temporaries"] >= 0.05 else ""), (moments, column)
