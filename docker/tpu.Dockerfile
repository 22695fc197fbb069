# syntax=docker/dockerfile:1
# Image of a run on Cloud TPU (GKE): docker build --file docker/tpu.Dockerfile --tag REGISTRY/vdit-tpu:COMMIT .
FROM python:3.11.14-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/venv
WORKDIR /opt/vdit
COPY . .
RUN /opt/venv/bin/pip install --constraint constraints.txt --editable '.[tpu,cloud]'

FROM python:3.11.14-slim-bookworm
RUN useradd --uid 1000 --create-home vdit \
    && mkdir --parents /opt/vdit/staged \
    && chown --recursive vdit /opt/vdit
COPY --from=build /opt/venv /opt/venv
COPY --from=build --chown=vdit /opt/vdit /opt/vdit
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /opt/vdit
USER 1000
ENTRYPOINT []
CMD ["python", "-m", "vdit.train", "--help"]
