import pytest

from adamx.testing import __main__ as program


def test_a_broken_promise_is_said_and_fails(monkeypatch, capsys):
    good = program.Row("adam", "float32", 0.0, 0.0, 1e-6, 2e-5)
    bad = program.Row("adam", "float64", 1.0, 0.0, 1e-6, 2e-5)
    monkeypatch.setattr(program, "rows", lambda: iter([good, bad]))
    assert program.main() == 1
    assert capsys.readouterr().out.count("BROKEN") == 1
    monkeypatch.setattr(program, "rows", lambda: iter([good]))
    assert program.main() == 0


@pytest.mark.parametrize("error", [1e-4, float("nan")])
def test_a_large_error_breaks_the_promise(error):
    assert not program.Row("adam", "float32", 0.0, 0.0, error, 2e-5).holds
