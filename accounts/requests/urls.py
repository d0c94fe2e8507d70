from __future__ import annotations

from django.urls import path

from accounts.requests import cohort_pages, pages, student_pages, team_pages, terms_pages

urlpatterns = [
    path("requests/", pages.own_list, name="access_requests"),
    path("requests/new/", pages.ask, name="access_ask"),
    path("requests/<int:pk>/", pages.own, name="access_request"),
    path("requests/<int:pk>/withdraw/", pages.withdraw, name="access_withdraw"),
    path("requests/<int:pk>/key/", pages.collect, name="access_collect"),
    path("requests/decide/", pages.decide_list, name="access_decide_list"),
    path("requests/decide/<int:pk>/", pages.decide, name="access_decide"),
    path("cohorts/", cohort_pages.course_list, name="access_cohorts"),
    path("cohorts/new/", cohort_pages.new, name="access_new_cohort"),
    path("cohorts/join/<str:token>/", student_pages.join, name="access_join"),
    path("cohorts/mine/<int:pk>/", student_pages.my_course, name="access_my_course"),
    path("cohorts/mine/<int:pk>/key/", student_pages.key, name="access_course_key"),
    path("cohorts/<int:pk>/", cohort_pages.course, name="access_cohort"),
    path("cohorts/<int:pk>/change/", cohort_pages.change, name="access_change_cohort"),
    path("cohorts/<int:pk>/invite/", cohort_pages.invite, name="access_invite"),
    path("cohorts/<int:pk>/stop/", cohort_pages.stop, name="access_stop_cohort"),
    path("cohorts/<int:pk>/go-on/", cohort_pages.go_on, name="access_go_on"),
    path("cohorts/<int:pk>/links/", cohort_pages.new_link, name="access_new_link"),
    path("cohorts/<int:pk>/links/<int:link_id>/revoke/", cohort_pages.revoke_link, name="access_revoke_link"),
    path("cohorts/<int:pk>/students/<int:student_id>/<str:action>/", cohort_pages.student, name="access_student"),
    path("terms/", terms_pages.show, name="access_terms"),
    path("team/", team_pages.team_list, name="access_teams"),
    path("team/<int:pk>/", team_pages.members, name="access_team"),
    path("team/<int:pk>/members/", team_pages.add_member, name="access_add_member"),
    path("team/<int:pk>/members/<int:user_id>/", team_pages.change_member, name="access_change_member"),
    path("team/<int:pk>/keys/", team_pages.keys, name="access_team_keys"),
    path("team/<int:pk>/keys/new/", team_pages.new_key, name="access_new_team_key"),
    path("team/<int:pk>/keys/<str:public_id>/revoke/", team_pages.revoke_key, name="access_revoke_team_key"),
    path("team/<int:pk>/budgets/", team_pages.budgets, name="access_team_budgets"),
    path("team/<int:pk>/budgets/<int:budget_id>/", team_pages.change_budget, name="access_change_budget"),
    path("team/<int:pk>/usage/", team_pages.usage, name="access_team_usage"),
]
