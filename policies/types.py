"""What may be looked at and changed on the way: the exchange. No HTTP, no provider, no database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Exchange:
    """One client call and its reply.

    endpoint      its name in proxy.endpoints, such as "chat/completions"
    body          the request's JSON object; what is sent upstream is made from it, never from the raw bytes, so that
                  what was checked is what the provider reads (a key given twice has one value from here on)
    model         public name of the model, aliases resolved
    stream        the client wants a stream of events
    wants_usage   the client asked for the usage event of a stream itself
    """

    endpoint: str
    body: dict[str, Any]
    model: str
    stream: bool = False
    wants_usage: bool = False
