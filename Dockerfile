# The server as a container: docs/how-to/deploy-with-docker.md.

# What the tests run with. Both stages need the same, since the virtual environment names its interpreter.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY auth auth
COPY persistence persistence
COPY crdt_sync crdt_sync
COPY docs/reference/vectors docs/reference/vectors
# Wheels only, in the versions that the tests run with: nothing of what is installed is compiled here.
RUN python -m venv --without-pip /opt/crdt-sync
RUN python -m pip --python /opt/crdt-sync/bin/python install --no-cache-dir --no-compile --disable-pip-version-check \
    --constraint constraints.txt --only-binary :all: ".[archive,tracing]"
RUN python -m compileall -q -j 0 /opt/crdt-sync/lib
RUN mkdir /data /run/crdt-sync

FROM ${BASE}
COPY --from=build /opt/crdt-sync /opt/crdt-sync
# A number, so that Kubernetes can see that it isn't root. No account is needed.
COPY --from=build --chown=10001:10001 /data /data
COPY --from=build --chown=10001:10001 /run/crdt-sync /run/crdt-sync
USER 10001:10001
WORKDIR /data

# Without keys it refuses to listen where others reach it: set CRDT_SYNC_JWT_SECRET.
ENV PATH=/opt/crdt-sync/bin:/usr/local/bin:/usr/bin:/bin \
    CRDT_SYNC_HOST=0.0.0.0 \
    CRDT_SYNC_PORT=1234 \
    CRDT_SYNC_OPS_HOST=0.0.0.0 \
    CRDT_SYNC_OPS_PORT=9234 \
    CRDT_SYNC_DATABASE_URL=sqlite:////data/crdt-sync.db \
    CRDT_SYNC_BLACK_BOX_FOLDER=/run/crdt-sync
EXPOSE 1234 9234
VOLUME ["/data"]

# The process lives and its loop turns. Whether it may get traffic is for the proxy to ask (/ready): a container that is
# restarted because its database is away would lose what it has not stored.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as web; web.urlopen(f\"http://127.0.0.1:{os.environ['CRDT_SYNC_OPS_PORT']}/health\", timeout=4)"]

# No shell in between, so that SIGTERM reaches the server, which then drains.
STOPSIGNAL SIGTERM
ENTRYPOINT ["crdt-sync"]
CMD ["serve"]
