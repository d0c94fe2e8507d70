"""Where the chain ended at a moment, signed and kept outside of the database: it shows when all of the trail was put
back to an earlier state. A line of JSON each, in a file, and sent to a webhook.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from django.conf import settings
from django.utils import timezone

from accounts.audit import chain
from accounts.audit.models import AuditHead

logger = logging.getLogger(__name__)
Post = Callable[[str, bytes], None]  # raises NotDelivered
MAX_LINE_BYTES = 4096


class NotDelivered(Exception):
    """The message says why, for the operator."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """`at`: ISO 8601, UTC."""

    number: int
    digest: str
    at: str
    key: str
    signature: str

    def line(self) -> str:
        return json.dumps(asdict(self))


def _nowhere(url: str, body: bytes) -> None:
    raise NotDelivered("nothing is set up to send it")


_post: list[Post] = [_nowhere]


def set_post(post: Post) -> None:
    """How a webhook is reached. Those who know fill it in: accounts imports no other app."""
    _post[:] = [post]


def make() -> Anchor | None:
    """Of the newest event; None when there is none."""
    head = AuditHead.objects.filter(pk=1).first()
    if head is None or not head.number:
        return None
    fingerprint, key = chain.signing_key()
    at = timezone.now().isoformat(timespec="seconds")
    return Anchor(head.number, head.digest, at, fingerprint, chain.sign(key, "anchor", head.number, head.digest, at))


def write() -> Anchor | None:
    """To the file and the webhook that are set up. The file gets one only when there are newer events; the webhook
    always, so that whoever keeps them hears when none come. Raises NotDelivered."""
    anchor = make()
    if anchor is None:
        return None
    path = anchor_file()
    if path and _last_number(path) != anchor.number:
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(anchor.line() + "\n")
        except OSError as error:
            raise NotDelivered(f"{path} cannot be written: {error.strerror}") from None
    if settings.AUDIT_ANCHOR_URL:
        _post[0](settings.AUDIT_ANCHOR_URL, anchor.line().encode())
    return anchor


def anchor_file() -> Path | None:
    return Path(settings.AUDIT_ANCHOR_FILE) if settings.AUDIT_ANCHOR_FILE else None


def read(path: Path | None = None) -> Iterator[Anchor]:
    """Of the file; none when there is none. A line that is no anchor is one that no key has signed."""
    path = path or anchor_file()
    if path is None or not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.strip():
                yield _parse(line)


def _parse(line: str) -> Anchor:
    try:
        fields = json.loads(line)
        words = [str(fields[name]) for name in ("digest", "at", "key", "signature")]
        return Anchor(int(fields["number"]), *words)
    except (ValueError, KeyError, TypeError):
        return Anchor(0, "", "?", "", "")


def _last_number(path: Path) -> int:
    """Of its last line; 0 when there is none."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - MAX_LINE_BYTES))
        lines = file.read().splitlines()
    return _parse(lines[-1].decode(errors="replace")).number if lines else 0


def forged(anchors: Iterable[Anchor], keys: Mapping[str, bytes]) -> Iterator[str]:
    """A sentence for each that we have not signed."""
    for anchor in anchors:
        key = keys.get(anchor.key)
        expected = chain.sign(key, "anchor", anchor.number, anchor.digest, anchor.at) if key else ""
        if not expected or not chain.holds(anchor.signature, expected):
            yield f"The anchor of {anchor.at} (event {anchor.number}) was altered, or is not ours."
