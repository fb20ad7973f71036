# docker build -t sfumato .                        the CPU
# docker build -t sfumato --build-arg JAX=cuda12 . a GPU of NVIDIA (run with --gpus all)
# docker run --rm sfumato                          the demo: accuracy, (epsilon, delta), where the report is
# docker run --rm -v "$PWD:/work" sfumato sfumato train --data /work/images --out /work/runs/first
FROM python:3.12-slim
ARG JAX=cpu
WORKDIR /opt/sfumato
COPY pyproject.toml README.md LICENSE ./
COPY sfumato sfumato
RUN pip install --no-cache-dir ".[hub,onnx,serve]" \
 && if [ "$JAX" != cpu ]; then pip install --no-cache-dir "jax[$JAX]>=0.10,<0.13"; fi
RUN useradd --create-home user && mkdir /work && chown user /work
USER user
WORKDIR /work
CMD ["sfumato", "train", "--data", "digits", "--epsilon", "8", "--out", "runs/demo"]
