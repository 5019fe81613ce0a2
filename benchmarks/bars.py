"""What the time of a step is held to: ratios of medians over rounds, in one row or in all of them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from contenders import FUSED, FUSED_BYTE, FUSED_HALF, OURS, THEIRS
from harness import Spread, ratios, verdict

EVERY_ROW = 1.03
"""Of optax: the fused steps everywhere, the composed one above COMPOSED_FROM elements."""

COMPOSED_FROM = 100_000
LARGE, GPT2 = "adam, 1.6e+07 in 1 leaf", "adam, GPT-2 small"


class Bar(NamedTuple):
    """At most this ratio of a contender's time to another one's in one row."""

    case: str
    contender: str
    over: str
    most: float


BARS = [
    Bar(LARGE, FUSED, THEIRS, 0.70),
    Bar(LARGE, FUSED, "torch fused", 1.05),
    Bar(LARGE, FUSED, "DeepSpeed", 1.05),
    Bar(LARGE, FUSED_HALF, THEIRS, 0.50),
    Bar(LARGE, FUSED_BYTE, THEIRS, 0.60),
    Bar(GPT2, FUSED, THEIRS, 0.75),
]


def every_row(ratio: Mapping[str, Spread], elements: int) -> str:
    """Says "holds", or "OVER" and by which contenders."""
    bound = [FUSED, FUSED_HALF, FUSED_BYTE] + ([OURS] if elements > COMPOSED_FROM else [])
    over = [name for name in bound if verdict(ratio[name], EVERY_ROW) == "OVER"]
    return f"OVER: {', '.join(over)}" if over else "holds"


def of_case(case: str, seconds: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """The bars of this row, as they go into the JSON file; without those over a contender that is not there."""
    found = []
    for bar in BARS:
        if bar.case == case and bar.over in seconds:
            ratio = ratios(seconds, bar.over)[bar.contender]
            found.append({**bar._asdict(), "ratio": ratio, "verdict": verdict(ratio, bar.most)})
    return found


HEADER = ["target", "over", "ratio", "at most", "verdict"]


def cells(bar: Mapping[str, Any]) -> list[str]:
    """One bar as the table prints it."""
    return [f"{bar['case']}: {bar['contender']}", bar["over"], str(bar["ratio"]), f"{bar['most']:.2f}", bar["verdict"]]
