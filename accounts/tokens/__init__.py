"""Management tokens, with which programs use the management API, and short-lived keys made for a token of the IdP."""
