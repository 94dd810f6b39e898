FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends libegl1 libgl1 && rm -rf /var/lib/apt/lists/*
ENV MUJOCO_GL=egl
WORKDIR /metarl
COPY . .
RUN pip install --no-cache-dir .
WORKDIR /work
ENTRYPOINT ["metarl"]
CMD ["--help"]
