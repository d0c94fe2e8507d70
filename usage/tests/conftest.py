"""What usage's tests need around them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from usage import currency


@pytest.fixture(autouse=True)
def books_in_dollars() -> Iterator[None]:
    """What one test sets is rolled back behind the back of what is remembered."""
    currency.forget()
    yield
    currency.forget()
