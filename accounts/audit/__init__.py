"""The audit trail: every change, sign-in, export and look at logged content, in a chain that shows what was tampered
with (accounts.audit.chain says how).

acting   who is acting, for what happens inside of it; a middleware says so for every request
record   writes an event of what is not a save
watch    every save and delete of a model writes an event
"""

from accounts.audit.actors import acting
from accounts.audit.watching import watch

__all__ = ["acting", "record", "watch"]


def record(action: str, target: object = None, **facts: object) -> None:
    """See accounts.audit.trail.record."""
    from accounts.audit import trail  # here, because there are no models yet when this package is first imported

    trail.record(action, target, **facts)  # type: ignore[arg-type]
