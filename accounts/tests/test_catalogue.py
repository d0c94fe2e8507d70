from __future__ import annotations

import pytest

from accounts import catalogue


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    monkeypatch.setattr(catalogue, "_sources", dict(catalogue._sources))


def test_names_are_asked_for_each_time():
    models = ["echo"]
    catalogue.set_names(models=lambda: list(models), endpoints=lambda: ["embeddings"])
    models.append("gpt-4o")

    assert catalogue.model_names() == ["echo", "gpt-4o"]
    assert catalogue.endpoint_names() == ["embeddings"]
