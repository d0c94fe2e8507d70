"""What somebody sees when they are signed in is kept by nobody on the way, nor shown by the browser after they left."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse


def pages(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """The middleware: behind that of authentication. A page that says something else about itself is left alone."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        if not response.has_header("Cache-Control") and request.user.is_authenticated:
            response["Cache-Control"] = "no-store, private"
        return response

    return middleware
