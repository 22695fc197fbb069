# syntax=docker/dockerfile:1
# Image of a build on a Ray cluster: docker build --file docker/ray.Dockerfile --tag REGISTRY/vdit-ray:COMMIT .
# For encoders on NVIDIA GPUs install the extra `gpu`, too.
FROM rayproject/ray:2.60.0-py311
COPY --chown=ray:users . /opt/vdit
WORKDIR /opt/vdit
RUN pip install --no-cache-dir --constraint constraints.txt --editable '.[cloud,ray,shots]'
