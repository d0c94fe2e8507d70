"""Below /scim/v2/. The last two answer whatever else is asked for in the shape SCIM has for errors."""

from django.urls import path, re_path

from accounts.scim import views

urlpatterns = [
    path("Users", views.UsersView.as_view(), name="scim_users"),
    path("Users/<str:object_id>", views.UserView.as_view(), name="scim_user"),
    path("Groups", views.GroupsView.as_view(), name="scim_groups"),
    path("Groups/<str:object_id>", views.GroupView.as_view(), name="scim_group"),
    path("ServiceProviderConfig", views.ConfigView.as_view(), name="scim_config"),
    path("Schemas", views.SchemasView.as_view(), name="scim_schemas"),
    path("Schemas/<str:object_id>", views.SchemaView.as_view(), name="scim_schema"),
    path("ResourceTypes", views.ResourceTypesView.as_view(), name="scim_resource_types"),
    path("ResourceTypes/<str:object_id>", views.ResourceTypeView.as_view(), name="scim_resource_type"),
    re_path(r"^.*$", views.NothingView.as_view(), name="scim_nothing"),
]
