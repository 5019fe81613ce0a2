"""Runs that are killed and resumed, checkpoints that are damaged, and the states of released versions."""

import gc
import importlib.util
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamx

TESTS = Path(__file__).parent
PROGRAM = TESTS.parent / "examples" / "resume_with_orbax.py"
TEMPORARY = "*.orbax-checkpoint-tmp*"

ocp = pytest.importorskip("orbax.checkpoint")

# Where Orbax cannot read one array it leaves coroutines for the others behind, and their event loop closed.
pytestmark = [
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """Collects them before another test, for which warnings are errors."""
    yield
    gc.collect()


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def example():
    return load(PROGRAM)


def kill_in_a_save(child, folder):
    """Kills a process that has a save in flight: it is stopped, looked at, and goes on if the save was over."""
    while child.poll() is None:
        if any(folder.glob(TEMPORARY)):
            child.send_signal(signal.SIGSTOP)
            if any(folder.glob(TEMPORARY)):
                child.kill()
                return
            child.send_signal(signal.SIGCONT)


def killed(folder, steps, saves, in_a_save, delay):
    """Starts or resumes the run, and kills it in a save or any time, after it has begun so many of them."""
    program = [sys.executable, PROGRAM, "--folder", folder, "--steps", str(steps)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        for _ in range(saves):
            assert child.stdout.readline().startswith("step"), child.stderr.read()
        if in_a_save:
            kill_in_a_save(child, folder)
        else:
            time.sleep(delay)
            child.kill()
    assert child.returncode == -signal.SIGKILL
    return any(folder.glob(TEMPORARY))


def check_kills(kills, example, tmp_path):
    random = np.random.default_rng(kills)
    steps = example.EVERY * (4 * kills + 4)  # at most 3 saves between kills
    folder = tmp_path / "killed"
    in_saves = 0
    for kill in range(kills):
        saves, delay = int(random.integers(1, 3)), float(random.uniform(0, 0.05))
        in_saves += killed(folder, steps, saves, kill % 2 == 0, delay)
    assert in_saves >= kills // 2
    resumed, expected = example.train(folder, steps), example.train(tmp_path / "whole", steps)
    jax.tree.map(np.testing.assert_array_equal, resumed, expected)


@pytest.mark.slow
def test_a_run_that_is_killed_in_a_save_and_resumed_ends_with_equal_bits(example, tmp_path):
    check_kills(1, example, tmp_path)


@pytest.mark.slow
def test_a_run_that_is_killed_20_times_ends_with_equal_bits(example, tmp_path):
    check_kills(20, example, tmp_path)


@pytest.fixture(scope="module")
def saved(example, tmp_path_factory):
    """A folder with one checkpoint, and what is in it."""
    folder = tmp_path_factory.mktemp("saved")
    example.train(folder, example.EVERY)
    return folder, restored(example, folder)


def restored(example, folder):
    with ocp.CheckpointManager(folder) as manager:
        return example.restore(manager, example.EVERY)


def restored_unseen(example, folder):
    """What Orbax restores, without the checks of the example."""
    with ocp.StandardCheckpointer() as checkpointer:
        params, state = jax.eval_shape(example.init)
        tree = checkpointer.restore(folder / str(example.EVERY) / "train", {"params": params, "state": state})
    return tree["params"], tree["state"]


def raised(call):
    try:
        call()
    except Exception:
        return True
    return False


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def copy(folder, to):
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder, to)
    return sorted(path for path in (to / "5" / "train").rglob("*") if path.is_file() and path.stat().st_size)


def check_flips(flips, example, saved, tmp_path):
    folder, good = saved
    random, damaged, silent = np.random.default_rng(flips), 0, 0
    while damaged < flips:
        files = copy(folder, tmp_path / "copy")
        sizes = np.asarray([path.stat().st_size for path in files])
        path = files[random.choice(len(files), p=sizes / sizes.sum())]
        data = bytearray(path.read_bytes())
        data[random.integers(len(data))] ^= 1 << random.integers(8)
        path.write_bytes(data)
        got = []
        if raised(lambda: got.extend(restored_unseen(example, tmp_path / "copy"))):
            damaged += 1  # Orbax saw it
        elif bits(got) != bits(good):  # else a bit that nothing reads
            damaged += 1
            silent += 1
            with pytest.raises(ValueError, match="step 5 is not what was saved"):
                restored(example, tmp_path / "copy")
    print(f"{damaged} flips did damage, {silent} of them were restored without a word")
    assert silent


def test_every_flipped_bit_is_caught(example, saved, tmp_path):
    check_flips(4, example, saved, tmp_path)


@pytest.mark.slow
def test_each_of_24_flipped_bits_is_caught(example, saved, tmp_path):
    check_flips(24, example, saved, tmp_path)


@pytest.mark.parametrize("part", [0.0, 0.5])
@pytest.mark.parametrize("which", [-1, -2])
def test_a_truncated_file_raises(which, part, example, saved, tmp_path):
    # The two largest files hold the arrays. Cut off by less, what is lost may be what nothing reads.
    folder, _ = saved
    path = sorted(copy(folder, tmp_path / "copy"), key=lambda path: path.stat().st_size)[which]
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    assert raised(lambda: restored(example, tmp_path / "copy"))


@pytest.mark.slow
def test_a_dtype_that_is_cast_is_caught(tmp_path):
    # Orbax casts to the dtypes of the template: these are right then, and the values are not what was saved.
    params = {"w": jnp.ones((4, 4))}
    saving, restoring = adamx.adam(1e-3), adamx.adam(1e-3, mu_dtype="bfloat16")
    _, state = saving.update({"w": jnp.full((4, 4), 0.3)}, saving.init(params))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", {"state": state})
        checkpointer.wait_until_finished()
        got = checkpointer.restore(tmp_path / "state", {"state": jax.eval_shape(restoring.init, params)})["state"]
        unnamed = checkpointer.restore(tmp_path / "state")["state"]
    adamx.interop.check_restored(restoring, got, params)
    assert adamx.digest.fingerprint(got) != adamx.digest.fingerprint(state)
    assert adamx.digest.fingerprint(unnamed) == adamx.digest.fingerprint(state)
    with pytest.raises(TypeError, match="expected tuple, got list"):
        adamx.interop.check_restored(saving, unnamed, params)
    with pytest.raises(TypeError, match="0/mu/w: expected float32, got bfloat16"):
        adamx.interop.check_restored(saving, got, params)
