"""Build the URL of chat completions from the address of a service, in any form in which people paste it."""

import re

import httpx

SETTING = "AGENT_RUNTIME__LLM_PROXY_URL"
COMPLETIONS = ["chat", "completions"]
VERSION = re.compile(r"v\d+(\.\d+)*((alpha|beta|preview|rc)\d*)?|beta", re.IGNORECASE)
"""A segment of a path that names a version of an API: v1, v4, v1beta, v1beta1, beta."""
HOST = re.compile(rb"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?|[0-9a-f.]*:[0-9a-f:.]*(%(25)?\w+)?", re.IGNORECASE)
"""A name or an IP address, in the form in which httpx sends it."""
MAX_PORT = 65_535
OTHER_PROTOCOLS = {
    *("completions", "responses", "messages", "chat", "generate", "embeddings", "models"),
    *("anthropic", "chatcompletion_v2", "converse", "invocations"),
}
"""Last segments of addresses whose requests have another format, or that take no requests of chats."""
BASE_PATHS = {
    "api.cohere.ai": "compatibility/v1",
    "api.cohere.com": "compatibility/v1",
    "api.deepinfra.com": "v1/openai",
    "api.fireworks.ai": "inference/v1",
    "api.githubcopilot.com": "",
    "api.groq.com": "openai/v1",
    "api.perplexity.ai": "",
    "api.z.ai": "api/paas/v4",
    "ark.cn-beijing.volces.com": "api/v3",
    "dashscope-intl.aliyuncs.com": "compatible-mode/v1",
    "dashscope.aliyuncs.com": "compatible-mode/v1",
    "generativelanguage.googleapis.com": "v1beta/openai",
    "models.github.ai": "inference",
    "models.inference.ai.azure.com": "",
    "open.bigmodel.cn": "api/paas/v4",
    "openrouter.ai": "api/v1",
    "qianfan.baidubce.com": "v2",
}
"""The paths of services that have no /v1 at their root, as their documentation has them. The beginning of such a path
is completed."""
AZURE_SUFFIXES = (".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com")
AZURE_BASE_PATH = "openai/v1"


def build_endpoint(address: str) -> str:
    """Return the URL of chat completions.

    An address that ends with /chat/completions is used as it is. One with a version in its path gets
    /chat/completions, any other one /v1/chat/completions. Raises ValueError with the right form for a text that cannot
    be such an address. The message repeats nothing of the text, which may hold a key.
    """
    url = _parse_address(address.strip())
    host = url.host.removesuffix(".")
    segments = _complete_path(host, [part for part in url.path.rstrip(".").split("/") if part], bool(url.query))
    return str(url.copy_with(host=host, path=f"/{'/'.join(segments)}", query=url.query or None))


def build_key_header(endpoint: str, key: str) -> dict[bytes, bytes]:
    """Return the header that carries the key of a service. Azure wants a name of its own."""
    url = httpx.URL(endpoint)
    if url.host.endswith(AZURE_SUFFIXES) or "/openai/deployments/" in url.path:
        return {b"api-key": key.encode()}
    return {b"Authorization": f"Bearer {key}".encode()}


def _parse_address(address: str) -> httpx.URL:
    if not re.match(r"https?://[^/]", address, re.IGNORECASE):
        raise ValueError(f"{SETTING} must be an http or https address, such as https://host/v1.")
    if not address.isprintable() or re.search(r"[\s\\<>{}|^`\"]", address):
        raise ValueError(
            f"{SETTING} has a blank or another character that no address has. Write it as https://host/v1."
        )
    try:
        url = httpx.URL(address)
        is_usable = bool(HOST.fullmatch(url.raw_host) and url.host) and (url.port or 0) <= MAX_PORT
    except (httpx.InvalidURL, ValueError):  # ValueError: of a host in Punycode
        is_usable = False
    if not is_usable:
        raise ValueError(f"{SETTING} is no address. Write it as https://host/v1 or http://host:8000/v1.")
    if url.userinfo:
        raise ValueError(f"{SETTING} must have no name and no password. Put the key into AGENT_RUNTIME__LLM_API_KEY.")
    if url.fragment or "#" in address:
        raise ValueError(f"{SETTING} must have no part after '#'. Write it as https://host/v1.")
    return url


def _complete_path(host: str, segments: list[str], has_query: bool) -> list[str]:
    """Return the segments of the path of chat completions. Raises ValueError if they cannot be known."""
    names = [segment.lower() for segment in segments]
    if names[-2:] == COMPLETIONS:
        return segments
    if names and (names[-1] in OTHER_PROTOCOLS or ":" in names[-1] or any(name.endswith(":") for name in names)):
        raise ValueError(
            f"{SETTING} ends with the path of another protocol. It must end with /chat/completions or /v1."
        )
    is_base = names[-2:-1] == ["deployments"] or names[-1:] == ["serving-endpoints"]  # Azure, Databricks
    has_version = is_base or any(map(VERSION.fullmatch, names))
    if has_query and not has_version:
        raise ValueError(
            f"{SETTING} with a '?' must be the whole address: https://host/.../chat/completions?name=value."
        )
    known = AZURE_BASE_PATH if host.endswith(AZURE_SUFFIXES) else BASE_PATHS.get(host)
    if known is not None and known.split("/")[: len(names)] == names:
        return [*filter(None, known.split("/")), *COMPLETIONS]
    return [*segments, *([] if has_version else ["v1"]), *COMPLETIONS]
