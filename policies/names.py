"""Names of models and tools, as an admin lists them: whole, in any case, with `*` for any characters."""

from __future__ import annotations

import re
from collections.abc import Iterable

LABEL_CHARS = 100  # of a finding's label


class Names:
    """`match` gives the entry that a name is listed by, cut to a label; None when it is not listed. Its time grows with
    the name, whatever it says. False when there are no entries."""

    def __init__(self, entries: Iterable[str]) -> None:
        by_name = {entry.casefold(): entry[:LABEL_CHARS] for entry in entries}
        self._exact = {name: entry for name, entry in by_name.items() if "*" not in name}
        self._wild = [(_compile(name), entry) for name, entry in by_name.items() if "*" in name]

    def __bool__(self) -> bool:
        return bool(self._exact or self._wild)

    def match(self, name: str) -> str | None:
        name = name.casefold()
        entry = self._exact.get(name)
        if entry is None:
            for pattern, wild in self._wild:
                if pattern.fullmatch(name):
                    return wild
        return entry


def _compile(entry: str) -> re.Pattern[str]:
    """Each piece between two stars is looked for once, where it comes first: atomic groups never look back, so no
    entry can make a name slow to match."""
    first, *middle, last = entry.split("*")
    pieces = "".join(f"(?>.*?{re.escape(piece)})" for piece in middle if piece)
    return re.compile(f"{re.escape(first)}{pieces}.*{re.escape(last)}", re.DOTALL)
