from __future__ import annotations

import pytest

from accounts import catalogue


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    """gpt-test and echo are there."""
    monkeypatch.setitem(catalogue._sources, "models", lambda: ["echo", "gpt-test"])
