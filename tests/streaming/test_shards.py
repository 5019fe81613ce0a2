"""Shards of several devices and processes, each in programs of their own, and what one device shows."""

import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamx.streaming import shards

PROGRAMS = Path(__file__).parents[1]
QUICK_PROCESSES = [
    "guarded/fsdp",
    "dithered/fsdp",
    "masters/split within",
    "int8/both",
    "averages/split over processes",
    "places",
]
QUICK = ["guarded masters/Auto", "clipped/Explicit", "places", "bytes", "in place", "templates"]
DEVICE = jax.devices("cpu")[0]


def run(*names):
    command = [sys.executable, "-W", "error", PROGRAMS / "host_mesh.py", *names]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-500:] + result.stderr[-3000:]
    return result.stdout.count("ok")


@pytest.mark.slow
def test_a_mesh():
    assert run(*QUICK) == len(QUICK)


@pytest.mark.slow
def test_a_mesh_with_every_transformation():
    assert run() == 21


def processes(*names):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "error", PROGRAMS / "host_processes.py", "2"]
    started = [
        subprocess.Popen(
            [*command, str(i), str(port), *names], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for i in range(2)
    ]
    for process in started:
        out, error = process.communicate(timeout=500)
        assert process.returncode == 0, error[-3000:]
    return out.count(": ok")


@pytest.mark.slow
def test_two_processes():
    assert processes(*QUICK_PROCESSES) == len(QUICK_PROCESSES)


@pytest.mark.slow
def test_what_two_processes_refuse():
    assert processes("refusals") == 1


@pytest.mark.slow
def test_two_processes_with_every_transformation():
    assert processes() == 26


def test_an_array_on_one_device_is_whole():
    x = jnp.ones(3)
    assert not shards.is_split(x)
    assert shards.box(x) == ((0, 3),)
    assert not shards.lies_apart(x)
    assert shards.like([x], [jnp.ones(3)])[0] is x
    assert not shards.is_split(np.ones(3))
    (here,) = shards.to_host([x], DEVICE)
    assert here.unsafe_buffer_pointer() == x.unsafe_buffer_pointer()
    (here,) = shards.to_host([x], DEVICE, may_alias=False)
    assert here.unsafe_buffer_pointer() != x.unsafe_buffer_pointer()


def test_devices_that_arrays_have_in_common():
    assert shards.common_devices([jnp.ones(2), jnp.ones(3)], DEVICE) == (DEVICE,)
    assert shards.common_devices([], DEVICE) == (DEVICE,)


def test_memory_that_xla_takes_as_it_is():
    for shape in ((), (3,), (0, 2), (5, 7)):
        room = shards._empty(shape, np.dtype("bfloat16"))
        assert room.shape == shape
        if room.size:
            room[...] = 1
            assert room.ctypes.data % shards.ALIGNMENT == 0
            assert jax.device_put(room, DEVICE).unsafe_buffer_pointer() == room.ctypes.data
