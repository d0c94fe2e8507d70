"""Django's cache: in Redis, so that all processes count together; in this process alone while Redis is away, so that
people can still sign in."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.redis import RedisCache
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)


def _or_else(name: str) -> Callable[..., Any]:
    def method(self: RedisOrMemory, *args: Any, **options: Any) -> Any:
        try:
            return getattr(super(RedisOrMemory, self), name)(*args, **options)
        except (RedisError, OSError) as error:
            logger.warning("the cache in Redis does not answer (%s); this process keeps its own", type(error).__name__)
            return getattr(self.memory, name)(*args, **options)

    return method


class RedisOrMemory(RedisCache):
    def __init__(self, server: str, params: dict[str, Any]) -> None:
        super().__init__(server, params)
        self.memory = LocMemCache("while Redis is away", params)

    add = _or_else("add")
    get = _or_else("get")
    set = _or_else("set")
    touch = _or_else("touch")
    delete = _or_else("delete")
    incr = _or_else("incr")
    has_key = _or_else("has_key")
    get_many = _or_else("get_many")
    set_many = _or_else("set_many")
    delete_many = _or_else("delete_many")
    clear = _or_else("clear")
