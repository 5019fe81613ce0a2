"""A weight decay that follows the schedule of the learning rate."""

from typing import Any

import optax

from adamx import hyperparameters
from adamx.core.rate import check_schedule
from adamx.hyperparameters import names_hints
from adamx.numerics import Scalar


@names_hints
def relative_decay(weight_decay: Scalar, learning_rate: optax.Schedule, peak: Scalar) -> optax.Schedule:
    """A schedule of the weight decay in proportion to the learning rate, `λ α_t / α_max`.

    In `adamx.adamw` the learning rate multiplies it, `λ α_t² / α_max`: AdamC, Defazio, "Why Gradients Rapidly Increase
    Near the End of Training" (2025), arXiv 2506.02285, which corrects the decay of layers that a normalization follows.
    In `adamx.decay_weights`, behind the learning rate, it is the η_t λ of Loshchilov & Hutter (2019), arXiv 1711.05101,
    and the `decouple_lr` of optimi and FlashOptim.

    Args:
        weight_decay: λ >= 0, at the peak.
        learning_rate: the schedule of the learning rate, from the number of steps taken before to α_t.
        peak: α_max > 0, the largest learning rate of the schedule.

    Returns:
        A schedule from the number of steps taken before to λ α_t / α_max.

    Raises:
        ValueError: a negative, infinite or NaN λ, a peak that is not positive and finite; a schedule that begins with
            such a number.
        TypeError: λ or the peak not a number; a learning rate that is not a schedule.

    Example:
        >>> import optax, adamx
        >>> schedule = optax.linear_schedule(0.002, 0.0, 4)
        >>> adamc = adamx.adamw(schedule, weight_decay=adamx.relative_decay(0.1, schedule, peak=0.002))
        >>> [round(float(adamx.relative_decay(0.1, schedule, 0.002)(t)), 3) for t in range(5)]
        [0.1, 0.075, 0.05, 0.025, 0.0]
    """
    decay = hyperparameters.nonnegative("weight_decay", weight_decay)
    highest = hyperparameters.nonnegative("peak", peak)
    if hyperparameters.known(highest) == 0:
        raise ValueError("peak must be a finite number above 0, the largest learning rate of the schedule, got 0.0")
    if isinstance(learning_rate, optax.GradientTransformation) or not callable(learning_rate):
        raise TypeError(
            f"learning_rate must be a schedule, got {learning_rate!r}: with a constant learning rate pass weight_decay "
            "itself"
        )
    check_schedule("learning_rate", learning_rate)

    def relative(count: Any) -> Any:
        alpha = hyperparameters.scalar("the value of the learning_rate schedule", learning_rate(count))
        return decay * (alpha / highest)

    return relative
