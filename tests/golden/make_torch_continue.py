"""Writes torch_continue.npz: a small network trained by torch, stopped halfway and not stopped.

Run `pip install torch numpy && python tests/golden/make_torch_continue.py`. For each optimizer and precision: the
parameters and `optimizer.state_dict()` after 50 steps, as arrays, and the parameters after 100.
"""

from pathlib import Path

import numpy as np
import torch

STEPS, RATE = 50, 1e-3
SETTINGS = {
    "Adam": (torch.optim.Adam, {}),
    "AdamW": (torch.optim.AdamW, {"weight_decay": 0.1}),
    "AMSGrad": (torch.optim.Adam, {"amsgrad": True}),
    "NAdam": (torch.optim.NAdam, {"momentum_decay": 1e6}),
    "Adamax": (torch.optim.Adamax, {}),
}
DTYPES = {"float32": torch.float32, "float64": torch.float64}


class Net(torch.nn.Module):
    """A convolution, the mean over the image, a linear layer: kernels of both layouts, and no flattened image."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 4, 3, dtype=dtype)
        self.fc = torch.nn.Linear(4, 3, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images NCHW to three numbers each."""
        return self.fc(torch.tanh(self.conv(x)).mean(dim=(2, 3)))


def data(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Eight images and what they should give."""
    random = np.random.default_rng(2015)
    x, y = random.standard_normal((8, 2, 6, 6)), random.standard_normal((8, 3))
    return torch.tensor(x, dtype=dtype), torch.tensor(y, dtype=dtype)


def start(name: str, dtype: torch.dtype) -> tuple[Net, torch.optim.Optimizer]:
    """A new network and its optimizer."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # arrays of 72 numbers
    torch.set_default_dtype(dtype)  # NAdam keeps a product of momenta in the default dtype
    net, (optimizer, arguments) = Net(dtype), SETTINGS[name]
    return net, optimizer(net.named_parameters(), lr=RATE, **arguments)


def train(net: Net, optimizer: torch.optim.Optimizer, steps: int) -> None:
    """Full batches, mean squared error."""
    x, y = data(next(net.parameters()).dtype)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(net(x), y).backward()
        optimizer.step()


def main() -> None:
    """Trains all and writes the file."""
    x, y = data(torch.float64)
    found = {"x": x.numpy(), "y": y.numpy(), "steps": np.array(STEPS), "rate": np.array(RATE)}
    for name in SETTINGS:
        for precision, dtype in DTYPES.items():
            net, optimizer = start(name, dtype)
            train(net, optimizer, STEPS)
            for key, value in net.state_dict().items():
                found[f"{name}/{precision}/model/{key}"] = value.numpy().copy()
            for number, entry in optimizer.state_dict()["state"].items():
                for field, value in entry.items():
                    found[f"{name}/{precision}/state/{number}/{field}"] = value.numpy().copy()
            train(net, optimizer, STEPS)
            for key, value in net.state_dict().items():
                found[f"{name}/{precision}/after/{key}"] = value.numpy().copy()
    file = Path(__file__).with_name("torch_continue.npz")
    np.savez_compressed(file, **found)
    print(f"torch {torch.__version__}: {', '.join(SETTINGS)} in {file.name}, {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
