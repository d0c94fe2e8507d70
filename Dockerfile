# One image for everything: web (the default), worker, beat, and manage.py commands. See docker-compose.yml.
# No secret is needed to build it, and none is in it.

FROM python:3.11-slim-bookworm AS packages
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /venv
COPY requirements.txt /requirements.txt
RUN /venv/bin/pip install --requirement /requirements.txt

FROM python:3.11-slim-bookworm
# Numbers, because Kubernetes cannot tell from a name that it is not root.
RUN groupadd --gid 10001 gatehouse \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin gatehouse \
    && install --directory --owner 10001 --group 10001 --mode 0750 /data
COPY --from=packages /venv /venv
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DATA_DIR=/data \
    STATIC_ROOT=/app/collected
WORKDIR /app
COPY . .
# Done here and not at start, so that the container can run with a read-only file system.
RUN DATA_DIR=/tmp/build python manage.py collectstatic --noinput --verbosity 0 \
    && python -m compileall -q /app \
    && rm -rf /tmp/build
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# Alive, not ready: a database that is away for a minute is no reason to kill the process that still answers calls.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=3)"]
# Gunicorn's sign of life is a file: in memory, so that a slow disk does not get workers killed.
CMD ["gunicorn", "--worker-tmp-dir", "/dev/shm", "gateway_project.asgi:application"]
