"""What `pytest` alone runs, what a command with a path, -k or -m runs, and how many workers start."""

from types import SimpleNamespace

import pytest

from tests import conftest
from tests.conftest import pytest_collection_modifyitems, pytest_xdist_auto_num_workers, sample


class Item:
    """As much of a test as the rule looks at."""

    def __init__(self, name, *marks):
        self.name, self.nodeid, self.marks = name, f"tests/test_a.py::{name}", marks

    def get_closest_marker(self, mark):
        return mark in self.marks


def table(test, columns, rows):
    return [Item(f"{test}[{a}-{b}]") for a in columns for b in rows]


def test_a_sample_has_one_entry_of_a_table():
    assert len(sample(table("test_b", "pqrs", "xyz"))) == 1


def test_another_version_of_jax_takes_other_entries(monkeypatch):
    entries, found = table("test_b", "abcdefgh", "stuvw"), set()
    for version in ("0.6.0", "0.10.2", "0.12.0"):
        monkeypatch.setattr(conftest.jax, "__version__", version)
        found |= set(sample(entries))
    assert len(found) > 1


def test_the_parts_have_every_table_once():
    entries = [item for name in "abcdefghijklmnop" for item in table(f"test_{name}", "pq", "xyz")]
    parts = [sample(entries, f"{k}/6") for k in range(6)]
    assert all(parts)
    assert sorted(item.name for part in parts for item in part) == sorted(item.name for item in sample(entries))


def test_a_sample_is_the_same_whatever_else_there_is_and_in_any_order():
    entries = table("test_b", "abcdefgh", "stuvw")
    others = [Item("test_alone"), *table("test_c", "abcdefgh", "stuvw")]
    taken = sample(entries)
    mixed = sample([*others, *reversed(entries)])
    assert [item for item in mixed if item in entries] == taken
    # Tables of the same entries do not all take the same ones.
    assert {item.name.partition("[")[2] for item in taken} != {
        item.name.partition("[")[2] for item in mixed if item.name.startswith("test_c")
    }


def run(args=(), keyword="", markexpr=""):
    """The names of what is left of a table, a slow and a soak test."""
    sources = pytest.Config.ArgsSource
    config = SimpleNamespace(
        args=list(args) or ["tests", "adamx"],
        args_source=sources.ARGS if args else sources.TESTPATHS,
        ArgsSource=sources,
        option=SimpleNamespace(keyword=keyword, markexpr=markexpr, part=None),
        hook=SimpleNamespace(pytest_deselected=lambda items: None),
    )
    items = [*table("test_b", "pqrs", "xyz"), Item("test_long", "slow"), Item("test_longest", "soak")]
    pytest_collection_modifyitems(config, items)
    return sorted({item.name.partition("[")[0] for item in items}), len(items)


def test_pytest_alone_runs_a_sample(monkeypatch):
    turns = []
    for minor in range(conftest.SHARE):
        monkeypatch.setattr(conftest.jax, "__version_info__", (0, minor, 0))
        names, count = run()
        assert count == len(names)
        turns += names
    assert sorted(turns) == ["test_b"] * conftest.SHARE + ["test_long"]


@pytest.mark.parametrize(
    "command", [{"args": ["tests/test_b.py"]}, {"args": ["tests"]}, {"keyword": "b"}, {"markexpr": "torch"}], ids=str
)
def test_a_command_that_selects_runs_all_but_soak_tests(command):
    assert run(**command) == (["test_b", "test_long"], 13)


NAMED = [
    {"args": ["tests/soak"]},
    {"markexpr": "soak"},
    {"args": ["tests/test_a.py"]},
    {"args": ["tests/test_a.py::b"]},
]


@pytest.mark.parametrize("command", NAMED, ids=str)
def test_soak_tests_run_if_they_are_named(command):
    assert "test_longest" in run(**command)[0]


def test_no_more_workers_than_cores_and_memory_allow(monkeypatch):
    def workers(cores):
        hook = pytest_xdist_auto_num_workers()
        next(hook)
        with pytest.raises(StopIteration) as stopped:
            hook.send(cores)
        return stopped.value.value

    monkeypatch.setattr(conftest, "WORKER", 2**20)
    assert workers(3) == 3
    monkeypatch.setattr(conftest, "WORKER", 2**60)
    assert workers(3) == 1
