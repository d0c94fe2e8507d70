"""Django alone, for tools that want WSGI. The gateway itself is gateway_project.asgi: /v1 does not exist here."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway_project.settings")

application = get_wsgi_application()
