import sys

import pytest

import adamx

HISTORY = [
    {f"layer_{i}": adamx.diagnostics.Measurement(t, 0.5, 0.1, 0.0, 1.0 + i, 0.3, 1e-3, 0.1) for i in range(10)}
    for t in (1, 51, 101)
]


@pytest.mark.slow
def test_a_panel_for_each_field_and_a_line_for_each_leaf(tmp_path):
    figure = adamx.diagnostics.plot(HISTORY)
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert len(shown) == 7
    assert all(len(axis.lines) == 10 for axis in shown)
    assert list(shown[3].lines[2].get_ydata()) == [3.0, 3.0, 3.0]
    assert list(shown[3].lines[2].get_xdata()) == [1, 51, 101]
    figure.savefig(tmp_path / "out.png")


def test_errors(monkeypatch):
    with pytest.raises(ValueError, match="history is empty"):
        adamx.diagnostics.plot([])
    with pytest.raises(ValueError, match=r"fields must be some of signal_to_noise, .* got \['loss'\]"):
        adamx.diagnostics.plot(HISTORY, ["loss"])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'adamx\[plot\]'"):
        adamx.diagnostics.plot(HISTORY)
