FROM python:3.12-slim AS build
WORKDIR /app
COPY requirements.lock .
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --require-hashes -r requirements.lock

FROM python:3.12-slim
RUN useradd --system --uid 10001 --create-home app && mkdir /data && chown app /data
WORKDIR /app
COPY --from=build /venv /venv
COPY server.py pyproject.toml ./
COPY cli cli
COPY api api
COPY graph graph
COPY nodes nodes
COPY policy policy
COPY prompts prompts
COPY sessions sessions
COPY textsafety textsafety
# AGENT_RUNTIME__INTERNAL_API_KEY comes from whoever runs it: 16 characters or more. DEV=true is refused on this HOST.
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    AGENT_RUNTIME__HOST=0.0.0.0 \
    AGENT_RUNTIME__PORT=8001 \
    AGENT_RUNTIME__DB_URL=sqlite:////data/agent_runtime.db
USER app
VOLUME /data
EXPOSE 8001
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8001/health', timeout=2)"]
CMD ["python", "server.py"]
