import gc
import pickle

import jax
import jax.numpy as jnp

from adamx.streaming.groups import Group
from adamx.streaming.parts import Parts, Source
from adamx.streaming.stream import Memory, Stream, step_parts

DEVICE = jax.devices("cpu")[0]


def test_a_copy_lives_as_long_as_its_array_and_is_used_once():
    memory, p, copy = Memory(), jnp.ones(2), jnp.zeros(2)
    assert memory.pop(p) is None
    memory.keep(p, copy)
    assert memory.pop(jnp.ones(2)) is None
    assert memory.pop(p) is copy
    assert memory.pop(p) is None
    memory.keep(p, copy)
    del p
    gc.collect()
    assert memory._copies == {}


def test_a_pickled_memory_is_empty():
    memory, p = Memory(), jnp.ones(2)
    memory.keep(p, p)
    assert pickle.loads(pickle.dumps(memory)).pop(p) is None


def test_what_is_made_is_made_once():
    memory = Memory()
    assert memory.once("a", lambda: 1) == memory.once("a", lambda: 2) == 1
    assert memory.once("b", lambda: None) is memory.once("b", lambda: 3) is None


def test_parameters_that_a_step_returned_do_not_go_down_again(monkeypatch):
    memory, (a, b) = Memory(), (jnp.ones(2), jnp.zeros(3))
    put, sent = jax.device_put, []
    monkeypatch.setattr(jax, "device_put", lambda x, *rest, **more: (sent.append(len(x)), put(x, *rest, **more))[1])
    stream = Stream([], [a, b], DEVICE, memory, True)
    here = stream.down([a, b])
    there = stream.up([a, b], here)
    assert sent == [2, 2]
    assert a.is_deleted()
    again = Stream([], there, DEVICE, memory, True).down(there)
    assert sent == [2, 2, 0]
    assert all(x is y for x, y in zip(again, here, strict=True))


class Recorded(Stream):
    """Notes what happens in which order."""

    def __init__(self, events):
        super().__init__([], [], DEVICE, Memory(), False)
        self.events = events

    def gradients(self, given, params):
        self.events.append(f"gradient {int(given[0])} down")
        return given

    def up(self, old, new):
        self.events.append(f"parameter {int(old[0])} up")
        return new


def test_gradients_go_before_and_parameters_behind_the_step_of_their_neighbours():
    events = []

    def program(clean, shared, gradients, arrays):
        events.append(f"step {int(gradients[0])}")
        return [arrays[0] + gradients[0] * shared[0]]

    groups = [Group([i], [3 + i], [3 + i], program) for i in range(3)]
    results = [*(Source("stepped", 3 + i) for i in range(3)), Source("number", 1), Source("input", 6)]
    parts = Parts(lambda given: [given[0] * 2, given[0] + 1], [6], [], 0, 1, groups, results)
    flat = [jnp.float32(i) for i in (0, 1, 2, 0, 1, 2, 5)]
    after = step_parts(parts, flat, Recorded(events))
    assert events == [
        *("gradient 0 down", "step 0"),
        *("gradient 1 down", "step 1"),
        *("gradient 2 down", "parameter 0 up", "step 2"),
        *("parameter 1 up", "parameter 2 up"),
    ]
    assert [float(x) for x in after] == [0, 11, 22, 6, 5]
