"""The one object that a call and its checks share."""

from __future__ import annotations

from dataclasses import fields, replace

from policies.types import Exchange


def test_another_body_changes_nothing_else() -> None:
    given = {field.name: object() for field in fields(Exchange)}
    exchange = Exchange(**given)  # type: ignore[arg-type]
    assert exchange.with_body({"n": 1}) == replace(exchange, body={"n": 1})
