"""Which paths are the door's, and how many spellings they have."""

from __future__ import annotations

import pytest

from proxy.asgi import Door, normalise


@pytest.mark.parametrize(
    ("path", "tidy"),
    [
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("//v1//Chat/Completions/", "/v1/chat/completions"),
        ("/chat/completions", "/chat/completions"),
        ("/v1/models/OpenAI/GPT-4o", "/v1/models/OpenAI/GPT-4o"),
        ("/V1/Models/X/", "/v1/models/X"),
        ("/openai/deployments/gpt-4o/chat/completions", "/v1/chat/completions"),
        ("/openai/deployments/org/model/embeddings", "/v1/embeddings"),
        ("/openai/v1/completions", "/v1/completions"),
        ("/openai/models", "/v1/models"),
        ("/openai/models/GPT-4o", "/v1/models/GPT-4o"),
        ("/models/GPT-4o", "/v1/models/GPT-4o"),
    ],
)
def test_one_spelling_of_a_path(path: str, tidy: str) -> None:
    assert normalise(path) == tidy


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/nonsense", "/v1", "//v1/x", "/embeddings", "/models/x", "/openai/x"]
)
def test_the_door_owns_the_data_plane(path: str) -> None:
    assert Door.owns(path)


@pytest.mark.parametrize("path", ["/", "/admin/", "/v1x", "/healthz", "/static/v1/x", "/openai-x", "/api/v1/keys"])
def test_everything_else_is_djangos(path: str) -> None:
    assert not Door.owns(path)
