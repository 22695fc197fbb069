# syntax=docker/dockerfile:1
# Image of a run on NVIDIA GPUs: docker build --file docker/gpu.Dockerfile --tag REGISTRY/vdit-gpu:COMMIT .
FROM python:3.11.14-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/venv
WORKDIR /opt/vdit
COPY . .
RUN /opt/venv/bin/pip install --constraint constraints.txt --editable '.[gpu,cloud]'

FROM python:3.11.14-slim-bookworm
RUN useradd --uid 1000 --create-home vdit \
    && mkdir --parents /opt/vdit/staged \
    && chown --recursive vdit /opt/vdit
COPY --from=build /opt/venv /opt/venv
COPY --from=build --chown=vdit /opt/vdit /opt/vdit
# CUDA comes as Python packages; the driver is the node's.
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /opt/vdit
USER 1000
ENTRYPOINT []
CMD ["python", "-m", "vdit.train", "--help"]
