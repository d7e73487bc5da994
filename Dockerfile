# MASUKA in a container: one volume, no root, asks nobody.
#   docker build -t masuka .                                    for the CPU
#   docker build -t masuka --build-arg TORCH=cu126 .            for NVIDIA GPUs
FROM python:3.12-slim

# cpu, cu126, cu128 or cu130: a folder of PyTorch's own index.
ARG TORCH=cpu

RUN apt-get update \
    && apt-get install -y --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 masuka

WORKDIR /app
# The large and slow part first: it changes seldom.
RUN pip install --no-cache-dir "torch>=2.8,<3" --index-url "https://download.pytorch.org/whl/${TORCH}"
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY . .

ENV MASUKA_PLATFORM=docker \
    MASUKA_HOME=/data \
    MASUKA_HOST=0.0.0.0 \
    MASUKA_PORT=7860 \
    PYTHONUNBUFFERED=1
VOLUME /data
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:7860/healthz', timeout=4)"]
STOPSIGNAL SIGTERM

# Begins as root only to make the volumes writable, then becomes `masuka` for good.
ENTRYPOINT ["/bin/sh", "/app/hosts/start.sh"]
CMD ["python", "app.py"]
