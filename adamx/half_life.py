"""β2 by its half-life in tokens, so that it need not be tuned anew for another batch size."""

from typing import Any

from adamx import hyperparameters
from adamx.hyperparameters import names_hints


@names_hints
def beta2_for(tokens_per_step: Any, half_life: Any) -> float:
    """Computes β2 from its half-life in tokens: after so many a squared gradient has half of its weight in v.

    `β2 = 2^(-tokens_per_step / half_life)`.

    Marek et al., "Small Batch Size Training for Language Models: When Vanilla SGD Works, and Why Gradient Accumulation
    Is Wasteful" (2025), arXiv 2507.07101: when the batch size changes, keep the half-life of v in tokens, not β2. A
    batch of a quarter of the size then needs `β2^(1/4)`. Count samples for tokens where data are no text.

    Args:
        tokens_per_step: tokens in one step: batch size times sequence length, over all devices and accumulated batches.
        half_life: tokens after which the weight of a squared gradient is half of what it was.

    Returns:
        β2, a Python float below 1. Above 0.999 pass it with `precise=True`: float32 holds 1-β2 with few digits.

    Raises:
        ValueError: a number that is not positive and finite; a half-life of so many steps that β2 rounds to 1.
        TypeError: not a number, or an array whose value is not known, as inside `jax.jit`.

    Example:
        >>> import adamx
        >>> half_life = 13.5 * 512 * 1024  # β2 = 0.95 with 512 sequences of 1024 tokens
        >>> [round(adamx.beta2_for(batch * 1024, half_life), 5) for batch in (512, 64, 8, 1)]
        [0.94995, 0.9936, 0.9992, 0.9999]
        >>> tx = adamx.adamw(1e-3, b2=adamx.beta2_for(8 * 1024, half_life), precise=True)
    """
    tokens, half = _positive("tokens_per_step", tokens_per_step), _positive("half_life", half_life)
    b2 = 2.0 ** -min(tokens / half, 2.0**10)
    if b2 == 1:
        raise ValueError(f"half_life must be below 2^53 steps, for β2 below 1, got {half} with {tokens} tokens a step")
    return b2


def _positive(name: str, value: Any) -> float:
    number = hyperparameters.known(hyperparameters.at_least(name, value, 0))
    if number is None:
        raise TypeError(f"{name} must be a number whose value is known, got a traced array: call it outside jax.jit")
    if number == 0:
        raise ValueError(f"{name} must be a finite number above 0, got {number}")
    return number
