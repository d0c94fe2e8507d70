from __future__ import annotations

import json

import pytest

from proxy.providers.base import NonsenseReply, UnsupportedRequest, decode, encode
from proxy.tests.recorded import target_of


def test_secrets_of_a_target_are_not_shown() -> None:
    target = target_of("openai", credential="sk-secret", extra_headers={"x-key": "secret"})

    assert "secret" not in repr(target)
    assert "secret" not in repr(target.adapter.probe(target))


def test_json_is_written_compactly_and_as_it_is() -> None:
    assert encode({"a": "ü", "b": [1, None]}) == '{"a":"ü","b":[1,null]}'.encode()


def test_json_beyond_orjson_is_written_in_ascii() -> None:
    assert encode({"a": "ü", "b": 2**64}) == b'{"a":"\\u00fc","b":18446744073709551616}'


def test_what_json_cannot_carry_is_refused() -> None:
    endless: list[object] = []
    endless.append(endless)

    for value in (endless, [2**64, float("nan")], json.loads("[" * 900 + "]" * 900) * 2 + [endless]):
        with pytest.raises(UnsupportedRequest):
            encode({"value": value})


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("body", [b"", b"[]", b"7", b"null", b"{", b"\xff", b"[" * 100_000])
def test_replies_are_objects(body: bytes, exact: bool) -> None:
    with pytest.raises(NonsenseReply):
        decode(body, exact=exact)


def test_large_integers_stay_exact_where_asked_for() -> None:
    assert decode(b'{"a":123456789012345678901}', exact=True) == {"a": 123456789012345678901}


def test_halves_of_emoji_are_taken() -> None:
    assert decode(b'{"a":"\\ud83d"}') == {"a": "\ud83d"}
