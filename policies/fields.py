"""Form fields of rules' settings that a text box, a file and the API can all fill: lists above all."""

from __future__ import annotations

import json
from typing import Any

from django import forms


class LinesField(forms.Field):
    """A list of texts: one per line in the admin, a list in files and the API. Cleans to list[str], each once."""

    widget = forms.Textarea(attrs={"rows": 4})

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(map(str, value)) if isinstance(value, list | tuple) else value

    def to_python(self, value: Any) -> list[str]:
        if value in (None, ""):
            return []
        items = value if isinstance(value, list | tuple) else str(value).splitlines()
        if not all(isinstance(item, str) for item in items):
            raise forms.ValidationError("must be a list of texts")
        return list(dict.fromkeys(stripped for item in items if (stripped := item.strip())))


class WordlistsField(LinesField):
    """Names of word lists, in order of name: theirs has no meaning, and the admin's boxes know no other. The admin
    offers those that exist; which ones do is judged where the rule is compiled."""

    def to_python(self, value: Any) -> list[str]:
        return sorted(super().to_python(value))


class ProviderField(forms.CharField):
    """The name of a provider. Which ones there are is judged when the rule is published."""


class PairsField(forms.Field):
    """Pairs of texts with names, such as `match` and `reply`. Cleans to list[dict[str, str]].

    A list of objects in files and the API. In the admin one pair a line, "match => reply"; where a text cannot be
    written so, because it has lines of its own for instance, all of them are shown, and read, as JSON.
    """

    widget = forms.Textarea(attrs={"rows": 6})
    ARROW = "=>"

    def __init__(self, left: str, right: str, *, max_pairs: int, max_chars: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.left, self.right = left, right
        self.max_pairs, self.max_chars = max_pairs, max_chars

    def prepare_value(self, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        try:
            pairs = [(pair[self.left], pair[self.right]) for pair in value]
            lines = "\n".join(f"{left} {self.ARROW} {right}" for left, right in pairs)
            if self._read_lines(lines) == list(value):
                return lines
        except (KeyError, TypeError, forms.ValidationError):
            pass  # what was given is no list of pairs, or cannot stand in lines
        return json.dumps(value, ensure_ascii=False, indent=2)

    def to_python(self, value: Any) -> list[dict[str, str]]:
        if value in (None, "", []):
            return []
        if isinstance(value, str):
            value = self._read_json(value) if value.lstrip().startswith("[") else self._read_lines(value)
        if not isinstance(value, list | tuple) or not all(map(self._is_pair, value)):
            raise forms.ValidationError(f"must be a list of objects with {self.left} and {self.right}, both texts")
        if len(value) > self.max_pairs:
            raise forms.ValidationError(f"must be at most {self.max_pairs}")
        if any(len(text) > self.max_chars for pair in value for text in pair.values()):
            raise forms.ValidationError(f"must be texts of at most {self.max_chars} characters")
        return [dict(pair) for pair in value]

    def _is_pair(self, value: Any) -> bool:
        if not isinstance(value, dict) or value.keys() != {self.left, self.right}:
            return False
        return all(isinstance(text, str) and text.strip() for text in value.values())

    def _read_json(self, text: str) -> Any:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            # A line may begin with a bracket too.
            return self._read_lines(text)

    def _read_lines(self, text: str) -> list[dict[str, str]]:
        pairs = []
        for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
            if line.strip():
                left, arrow, right = (part.strip() for part in line.partition(self.ARROW))
                if not (left and arrow and right):
                    raise forms.ValidationError(f"line {number} must read: {self.left} {self.ARROW} {self.right}")
                pairs.append({self.left: left, self.right: right})
        return pairs


class ObjectField(forms.Field):
    """A JSON object: as it is in files and the API, as JSON text in the admin. Cleans to dict[str, Any]."""

    widget = forms.Textarea(attrs={"rows": 10, "spellcheck": "false"})

    def __init__(self, *, max_chars: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_chars = max_chars

    def prepare_value(self, value: Any) -> Any:
        return json.dumps(value, ensure_ascii=False, indent=2) if isinstance(value, dict) else value

    def to_python(self, value: Any) -> dict[str, Any]:
        if value in (None, ""):
            return {}
        try:
            read = json.loads(value) if isinstance(value, str) else value
            text = json.dumps(read)
        except (TypeError, ValueError, RecursionError):
            raise forms.ValidationError("must be a JSON object") from None
        if not isinstance(read, dict):
            raise forms.ValidationError("must be a JSON object")
        if len(text) > self.max_chars:
            raise forms.ValidationError(f"must be at most {self.max_chars} characters")
        return read
