#!/usr/bin/env python
"""Django's command line, with Gatehouse's settings."""

import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway_project.settings")
    if sys.argv[1:2] == ["up"]:
        # `up` is the local run: it may make and keep its own secrets in the data folder.
        os.environ.setdefault("GATEHOUSE_LOCAL", "1")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
