"""Writes torch.npz: float64 trajectories of the family of Adam in torch.optim on one stream of gradients.

Run `pip install torch numpy && python tests/golden/make_torch.py`. Every tenth of 300 steps is kept. NAdam runs with a
momentum decay so large that its momentum schedule is constant, the form that Dozat's Algorithm 2 and optax have, and
"nadam_default" without. RAdam runs with ε = 0 because torch corrects √v after it has added ε.
"""

from pathlib import Path

import numpy as np
import torch

SETTINGS = {
    "adam": (torch.optim.Adam, {}),
    "adam_eps": (torch.optim.Adam, {"betas": (0.8, 0.99), "eps": 1e-3}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.1}),
    "nadam": (torch.optim.NAdam, {"momentum_decay": 1e6}),
    "nadam_default": (torch.optim.NAdam, {}),
    "nadamw": (
        torch.optim.NAdam,
        {"momentum_decay": 1e6, "weight_decay": 0.1, "decoupled_weight_decay": True},
    ),
    "amsgrad": (torch.optim.Adam, {"amsgrad": True}),
    "adamax": (torch.optim.Adamax, {}),
    "adamax_eps": (torch.optim.Adamax, {"betas": (0.8, 0.99), "eps": 1e-3}),
    "radam": (torch.optim.RAdam, {"eps": 0.0}),
    "radam_eps": (torch.optim.RAdam, {"eps": 1e-3}),
}
STEPS, EVERY, SIZE, RATE = 300, 10, 7, 1e-2


def main() -> None:
    torch.set_default_dtype(torch.float64)  # NAdam keeps a product of momenta in the default dtype
    random = np.random.default_rng(2015)
    theta = random.standard_normal(SIZE)
    scales = 10.0 ** random.integers(-4, 3, (STEPS, 1))
    gradients = random.standard_normal((STEPS, SIZE)) * scales * (random.random((STEPS, SIZE)) > 0.2)
    found = {"theta": theta, "gradients": gradients, "rate": np.array(RATE), "every": np.array(EVERY)}
    for name, (optimizer, arguments) in SETTINGS.items():
        parameter = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
        steps = optimizer([parameter], lr=RATE, **arguments)
        path = []
        for gradient in gradients:
            parameter.grad = torch.tensor(gradient, dtype=torch.float64)
            steps.step()
            path.append(parameter.detach().numpy().copy())
        found[name] = np.stack(path)[EVERY - 1 :: EVERY]
    file = Path(__file__).with_name("torch.npz")
    np.savez_compressed(file, **found)
    print(f"torch {torch.__version__}: {', '.join(SETTINGS)} in {file.name}, {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
