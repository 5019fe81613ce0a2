"""Here the kernel takes leaves that are too small to be worth a call, as if they were many: small arrays test it."""

import pytest

from adamx.kernels import layout


@pytest.fixture(autouse=True)
def every_leaf_is_worthwhile(monkeypatch):
    monkeypatch.setattr(layout, "MANY", 0)
