"""The whole: settings, the two doors, commands. Celery's app is not loaded here: only its own processes need it."""
