"""The word lists that ship with Gatehouse: files of one entry a line; `#` begins a comment line, `!` an exception."""

from __future__ import annotations

from functools import cache
from pathlib import Path

SEEDS = {
    "profanity": "Swear words and slurs in English.",
    "adult": "Sexual words in English. Medical and everyday words are not in it.",
    "dan": "Phrases that try to talk a model out of its instructions (prompt injection, jailbreaks).",
    "profanity-de": "Swear words and slurs in German.",
    "profanity-fr": "Swear words and slurs in French.",
    "profanity-es": "Swear words and slurs in Spanish.",
    "profanity-it": "Swear words and slurs in Italian.",
}
OTHER_LANGUAGES = frozenset(("profanity-de", "profanity-fr", "profanity-es", "profanity-it"))
_FOLDER = Path(__file__).parent


@cache
def seed(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(entries, exceptions). Raises LookupError."""
    if name not in SEEDS:
        raise LookupError(f"no word list {name} ships with Gatehouse")
    lines = (_FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    texts = [text for line in lines if (text := line.strip()) and not text.startswith("#")]
    return tuple(text for text in texts if text[0] != "!"), tuple(text[1:] for text in texts if text[0] == "!")
