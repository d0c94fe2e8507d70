from django.urls import path

from usage.portal import views

urlpatterns = [
    path("usage/", views.usage, name="portal_usage"),
    path("usage/calls/", views.calls, name="portal_calls"),
]
