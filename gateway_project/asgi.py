"""Two doors: /v1 (and lifespan) go to the data plane's own, everything else to Django."""

from __future__ import annotations

import os
from typing import Any, cast

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway_project.settings")
django_application = cast(Any, get_asgi_application())  # typed for its own scopes only

from django.conf import settings  # noqa: E402 - Django's apps must be loaded first

from gateway_project import logs  # noqa: E402
from gateway_project.lifespan import Lifespan  # noqa: E402
from proxy.asgi import Door  # noqa: E402
from proxy.call import Receive, Scope, Send  # noqa: E402

door = Door(settings.CORS_ALLOWED_ORIGINS, settings.TRUSTED_PROXIES, logs.request_id.set)
lifespan = Lifespan(door)
_owns = door.owns


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        if _owns(scope["path"]):
            await door(scope, receive, send)
        else:
            await django_application(scope, receive, send)
    elif scope["type"] == "lifespan":
        await lifespan(receive, send)
    else:  # a websocket: nothing here speaks it
        await send({"type": "websocket.close", "code": 1000})
