"""A worker process that takes steps with an optimizer of another library when it is asked to; `remote.py` asks.

    python benchmarks/peers.py NAME DEVICE

It speaks JSON, a line for each message. First it says whether the optimizer is there: {"version": ...} or
{"missing": why}. Then it answers {"shapes": [...]} with {} once it has parameters and gradients of these shapes, and
{"calls": n} with {"seconds": the mean of n steps in a row}. Between two requests it does nothing.
"""

import importlib.metadata
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple


class Peer(NamedTuple):
    """The package that it comes from, and what makes the optimizer of a list of parameters."""

    package: str
    make: Callable[[list[Any]], Any]


def torch_adam(name: str = "Adam", **arguments: Any) -> Callable[[list[Any]], Any]:
    def make(params: list[Any]) -> Any:
        import torch  # noqa: PLC0415

        return getattr(torch.optim, name)(params, lr=1e-3, **arguments)

    return make


def deepspeed(params: list[Any]) -> Any:
    from deepspeed.ops.adam import DeepSpeedCPUAdam  # noqa: PLC0415

    return DeepSpeedCPUAdam(params, lr=1e-3, adamw_mode=False)


def bitsandbytes(params: list[Any]) -> Any:
    import bitsandbytes as bnb  # noqa: PLC0415

    return bnb.optim.Adam8bit(params, lr=1e-3)


def torchao(params: list[Any]) -> Any:
    from torchao.optim import Adam8bit  # noqa: PLC0415

    return Adam8bit(params, lr=1e-3)


PEERS = {
    "torch-fused": Peer("torch", torch_adam(fused=True)),
    "torch-fused-adamw": Peer("torch", torch_adam("AdamW", fused=True, weight_decay=0.01)),
    "torch-foreach": Peer("torch", torch_adam(foreach=True)),
    "deepspeed": Peer("deepspeed", deepspeed),
    "bitsandbytes": Peer("bitsandbytes", bitsandbytes),
    "torchao": Peer("torchao", torchao),
}


def optimizer_for(peer: Peer, shapes: list[list[int]], device: str) -> Any:
    """The optimizer of parameters that are zero, with normal gradients."""
    import torch  # noqa: PLC0415

    torch.manual_seed(0)
    params = [torch.zeros(shape, device=device, requires_grad=True) for shape in shapes]
    for param in params:
        param.grad = torch.randn(param.shape, device=device)
    return peer.make(params)


def seconds_per_step(optimizer: Any, calls: int, device: str) -> float:
    """The mean over some steps in a row, until the last one has ended."""
    import torch  # noqa: PLC0415

    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    for _ in range(calls):
        optimizer.step()
    wait()
    return (time.perf_counter() - start) / calls


def tried(peer: Peer, device: str) -> dict[str, str]:
    """The version of the optimizer's package if a small step works, else why it does not."""
    try:
        import torch  # noqa: PLC0415

        if hasattr(os, "sched_getaffinity"):
            torch.set_num_threads(len(os.sched_getaffinity(0)))
        seconds_per_step(optimizer_for(peer, [[64, 64]], device), 1, device)
    except ModuleNotFoundError as error:
        return {"missing": "not installed" if error.name in ("torch", peer.package) else str(error)}
    except Exception as error:  # whatever keeps it from working is the answer
        return {"missing": f"fails: {type(error).__name__}: {str(error).partition(chr(10))[0]}"}
    return {"version": f"{peer.package} {importlib.metadata.version(peer.package)}"}


def main() -> None:
    name, device = sys.argv[1:]
    warnings.filterwarnings("ignore", "Failed to initialize NumPy")
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer
    peer, optimizer = PEERS[name], None
    print(json.dumps(tried(peer, device)), file=answers)
    for line in sys.stdin:
        request = json.loads(line)
        if "shapes" in request:
            optimizer = None  # frees the old one before there is a new one
            optimizer = optimizer_for(peer, request["shapes"], device) if request["shapes"] else None
            print("{}", file=answers)
        else:
            print(json.dumps({"seconds": seconds_per_step(optimizer, request["calls"], device)}), file=answers)


if __name__ == "__main__":
    main()
