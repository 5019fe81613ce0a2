"""Here the kernel takes leaves that are too small to be worth a call, as if they were large: small arrays test it."""

import pytest

from adamx.kernels import call, layout


@pytest.fixture(autouse=True)
def every_leaf_is_worthwhile(monkeypatch):
    monkeypatch.setattr(layout, "TINY", 0)
    monkeypatch.setattr(call, "LONG", 0)
