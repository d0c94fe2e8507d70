"""A provider for the tests: a real HTTP server that answers well, slowly, badly or not at all, and keeps exact books.

behaviours.py has the table of everything it can do.
"""

from gateway_project.tests.upstream.books import ANSWERED, CLIENT_CLOSED, CLIENT_RESET, CUT, Call
from gateway_project.tests.upstream.server import Upstream

__all__ = ["ANSWERED", "CLIENT_CLOSED", "CLIENT_RESET", "CUT", "Call", "Upstream"]
