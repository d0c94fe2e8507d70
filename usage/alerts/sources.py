"""What alerts need to know from apps that usage does not import. They lend it when they are ready
(gateway_project.crossings); what nobody lends is as if there were none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple


class BlockedKey(NamedTuple):
    """A key whose calls policies have blocked: `blocks` calls, not findings."""

    key_id: int
    key_label: str
    team_id: int | None
    blocks: int


# (since, at least so many) -> the keys blocked so often since then, the most often first.
RepeatedBlocks = Callable[[datetime, int], Sequence[BlockedKey]]

_repeated_blocks: RepeatedBlocks | None = None


def set_repeated_blocks(source: RepeatedBlocks | None) -> None:
    global _repeated_blocks
    _repeated_blocks = source


def repeated_blocks(since: datetime, at_least: int) -> Sequence[BlockedKey]:
    return _repeated_blocks(since, at_least) if _repeated_blocks else []
