"""Says that the configuration has changed. The data plane watches these counters (proxy.watch) and reloads in a second.

Services call `bump` inside the transaction of the change. Model signals call it too, so that a plain `save()` in the
admin or a shell counts; `.update()` and bulk writes send no signal and must call it themselves.
"""

from __future__ import annotations

import logging
import time

from django.conf import settings
from django.db import transaction
from django.db.models import F

from accounts.models import ConfigVersion

IDENTITY = "identity"  # users, teams, memberships, keys
CATALOGUE = "catalogue"  # providers, models, routes, prices
POLICIES = "policies"  # published policies, whom they hold for, word lists
LIMITS = "limits"  # budgets, top-ups, rate limits, settings of money
CHANNEL = "gatehouse:config"
QUIET_S = 0.1  # a bulk change bumps once a row, and one message for all is enough

logger = logging.getLogger(__name__)
_published_at: dict[str, float] = {}


def bump(part: str) -> None:
    """Raise the counter of `part` in the current transaction; after its commit, tell Redis (if any) to be quicker."""
    if not ConfigVersion.objects.filter(part=part).update(number=F("number") + 1):
        ConfigVersion.objects.get_or_create(part=part, defaults={"number": 1})
    if settings.REDIS_URL:
        transaction.on_commit(lambda: _publish(part))


def current() -> dict[str, int]:
    return dict(ConfigVersion.objects.values_list("part", "number"))


def _publish(part: str) -> None:
    """Best effort: the watchers poll anyway."""
    import redis  # here, because it takes a fifth of the start of every process that has no Redis

    now = time.monotonic()
    if now - _published_at.get(part, float("-inf")) < QUIET_S:
        return
    _published_at[part] = now
    try:
        with redis.Redis.from_url(settings.REDIS_URL, socket_timeout=0.5, socket_connect_timeout=0.5) as client:
            client.publish(CHANNEL, part)
    except (redis.RedisError, OSError):
        logger.warning("could not publish a configuration change; workers will see it within a second")
