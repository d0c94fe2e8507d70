from django.urls import path

from accounts.portal import views

urlpatterns = [
    path("keys/", views.key_list, name="portal_keys"),
    path("keys/new/", views.new_key, name="portal_new_key"),
    path("keys/<slug:public_id>/", views.key_page, name="portal_key"),
    path("keys/<slug:public_id>/rotate/", views.rotate, name="portal_rotate_key"),
    path("keys/<slug:public_id>/revoke/", views.revoke, name="portal_revoke_key"),
]
