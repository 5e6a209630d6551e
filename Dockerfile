# The agent in a container: `docker build -t outstation .`, then
#
#   docker run --read-only --cap-drop=all --security-opt no-new-privileges -v ./outstation.toml:/etc/outstation/outstation.toml:ro -v outstation:/var/lib/outstation outstation
#
# Serial ports: --device /dev/serial/by-id/...:/dev/ttyUSB0 --group-add dialout. BASE: any image with Python 3.11 or newer and venv.
ARG BASE=python:3.13-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# What is pinned first: this layer changes only with the pins. The agent's own environment gets no pip.
COPY requirements.txt requirements-build.txt ./
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/outstation \
    && /build/bin/pip install --quiet --require-hashes --requirement requirements-build.txt \
    && /build/bin/pip --python /opt/outstation/bin/python install --quiet --require-hashes --only-binary :all: \
       --requirement requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY agent agent
COPY drivers drivers
RUN /build/bin/python -m build --wheel --no-isolation --outdir /dist . >/dev/null \
    && /build/bin/pip --python /opt/outstation/bin/python install --quiet --no-deps --no-index /dist/*.whl

FROM ${BASE}
COPY --from=build /opt/outstation /opt/outstation
# By number, so that an orchestrator can see that it is not root. No home, no shell; state in one place.
RUN groupadd --system --gid 10001 outstation \
    && useradd --system --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin outstation \
    && install -d -o 10001 -g 10001 -m 0700 /var/lib/outstation && install -d /etc/outstation
# The modules are compiled at the build; the file system is read-only afterwards.
ENV PATH=/opt/outstation/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 STATE_DIRECTORY=/var/lib/outstation
USER 10001:10001
VOLUME /var/lib/outstation
STOPSIGNAL SIGTERM
# Unhealthy is also an agent whose broker or device is away, as `outstation status` says in the health check's log: let people be told by it,
# not the container be restarted. Once a minute, since each takes Python's start. (buildah and podman keep it with --format docker alone.)
HEALTHCHECK --interval=60s --timeout=20s --start-period=60s --retries=2 CMD ["outstation", "status", "-c", "/etc/outstation/outstation.toml"]
# Exec form: the agent is process 1 and gets the signals itself.
ENTRYPOINT ["outstation"]
CMD ["run", "-c", "/etc/outstation/outstation.toml"]
