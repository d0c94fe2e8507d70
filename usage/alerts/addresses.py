"""Addresses of destinations as they are entered, in the admin or in a file. No message quotes a URL or a secret."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.core.validators import validate_email

MAX_ADDRESSES = 50
LEAST_SECRET = 16
UNSIGNED = "Needed: a message without a signature could be anybody's."
NEEDS_HTTPS = "The URL must begin with https://: what is sent there is nobody else's business."


def clean_emails(given: Iterable[str]) -> str:
    """Each once, as they are stored; "" for none. Raises ValidationError."""
    found = [one.strip() for one in given if one.strip()]
    if len(found) > MAX_ADDRESSES:
        raise ValidationError(f"No more than {MAX_ADDRESSES} addresses.")
    for one in found:
        try:
            validate_email(one)
        except ValidationError:
            raise ValidationError(f"“{one}” is no e-mail address.") from None
    return ", ".join(dict.fromkeys(found))


def clean_url(given: str) -> str:
    """Whether it may lead there is another question. Raises ValidationError."""
    url = given.strip()
    if any(character <= " " or character > "~" or character == "\\" for character in url):
        raise ValidationError("The URL has spaces or unusual characters.")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValidationError("This is not a URL.") from None
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise ValidationError("The URL must begin with https:// and a host.")
    if "@" in parts.netloc or parts.fragment:
        raise ValidationError("The URL must hold no user name, no password and no #.")
    return url


def clean_secret(given: str) -> str:
    """Raises ValidationError."""
    secret = given.strip()
    if len(secret) < LEAST_SECRET:
        raise ValidationError(f"At least {LEAST_SECRET} characters.")
    return secret
