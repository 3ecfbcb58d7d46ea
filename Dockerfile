FROM python:3.11-slim
ARG TORCH=torch==2.13.0+cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /cmat
COPY . .
RUN pip install --no-cache-dir --extra-index-url ${TORCH_INDEX} ${TORCH} \
 && pip install --no-cache-dir -c constraints.txt -e .
RUN useradd --create-home cmat && chown -R cmat /cmat
USER cmat
ENTRYPOINT ["cmat"]
CMD ["run", "params/demo.yaml"]
