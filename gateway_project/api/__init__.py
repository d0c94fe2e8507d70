"""The management API, /api/v1/: what the admin can do, for programs.

One module for each family of resources. They are thin: what may be done is asked of the admin's own classes, what is
given is judged by the admin's own forms and the services under them, so that no rule is written twice.
"""
