"""Any address of an OpenAI-compatible service works, or the start fails with a sentence that has the right form."""

import pytest

from graph.llm import build_endpoint, open_model
from graph.settings import Settings
from tests.support.llm_server import ScriptedLLM, respond_text


@pytest.mark.parametrize(
    ("address", "endpoint"),
    [
        # Without a version: our own proxy, and whatever has /v1 at its root.
        ("http://127.0.0.1:8002", "http://127.0.0.1:8002/v1/chat/completions"),
        ("http://host/openai/", "http://host/openai/v1/chat/completions"),
        ("http://host/proxy-v1", "http://host/proxy-v1/v1/chat/completions"),
        # With a version, wherever it is.
        ("https://api.openai.com/v1", "https://api.openai.com/v1/chat/completions"),
        ("https://host/api/paas/v4/", "https://host/api/paas/v4/chat/completions"),
        ("https://host/api/v3", "https://host/api/v3/chat/completions"),
        ("https://host/v1beta/openai", "https://host/v1beta/openai/chat/completions"),
        ("https://host/compatible-mode/v1", "https://host/compatible-mode/v1/chat/completions"),
        ("https://host/v1/accounts/a/compat", "https://host/v1/accounts/a/compat/chat/completions"),
        ("https://host/v1beta1/projects/p", "https://host/v1beta1/projects/p/chat/completions"),
        ("https://host/v2.1", "https://host/v2.1/chat/completions"),
        ("https://host/V1", "https://host/V1/chat/completions"),
        # The whole address.
        ("https://api.perplexity.ai/chat/completions", "https://api.perplexity.ai/chat/completions"),
        ("https://models.github.ai/inference/chat/completions", "https://models.github.ai/inference/chat/completions"),
        ("https://host/api/v3/chat/completions/", "https://host/api/v3/chat/completions"),
        ("https://host/api/chat/completions?key=a%2Fb", "https://host/api/chat/completions?key=a%2Fb"),
        # Services without /v1 at their root.
        ("https://api.perplexity.ai", "https://api.perplexity.ai/chat/completions"),
        ("https://models.github.ai/inference", "https://models.github.ai/inference/chat/completions"),
        ("https://openrouter.ai/api", "https://openrouter.ai/api/v1/chat/completions"),
        ("https://api.groq.com", "https://api.groq.com/openai/v1/chat/completions"),
        (
            "https://generativelanguage.googleapis.com/v1beta",
            "https://generativelanguage.googleapis.com/v1beta/openai/chat/completions",
        ),
        # Azure.
        ("https://x.openai.azure.com/", "https://x.openai.azure.com/openai/v1/chat/completions"),
        (
            "https://x.openai.azure.com/openai/v1?api-version=preview",
            "https://x.openai.azure.com/openai/v1/chat/completions?api-version=preview",
        ),
        (
            "https://x.openai.azure.com/openai/deployments/gpt/chat/completions?api-version=2025-01-01",
            "https://x.openai.azure.com/openai/deployments/gpt/chat/completions?api-version=2025-01-01",
        ),
        (
            "https://x.openai.azure.com/openai/deployments/gpt?api-version=2025-01-01",
            "https://x.openai.azure.com/openai/deployments/gpt/chat/completions?api-version=2025-01-01",
        ),
        # Signs of pasting: blanks around, slashes, dots, capitals.
        ("  https://host/v1\n", "https://host/v1/chat/completions"),
        ("HTTPS://HOST//v1//", "https://host/v1/chat/completions"),
        ("https://host.example./v1.", "https://host.example/v1/chat/completions"),
        ("https://host/v1?", "https://host/v1/chat/completions"),
        ("https://api.deepseek.com/beta", "https://api.deepseek.com/beta/chat/completions"),
        ("https://api.githubcopilot.com", "https://api.githubcopilot.com/chat/completions"),
        (
            "https://x.cloud.databricks.com/serving-endpoints",
            "https://x.cloud.databricks.com/serving-endpoints/chat/completions",
        ),
        # Hosts.
        ("http://[::1]:8000", "http://[::1]:8000/v1/chat/completions"),
        ("http://[fe80::1%25eth0]:8000/v1", "http://[fe80::1%25eth0]:8000/v1/chat/completions"),
        ("https://пример.рф/v1", "https://xn--e1afmkfd.xn--p1ai/v1/chat/completions"),
        ("http://llm_proxy:4000", "http://llm_proxy:4000/v1/chat/completions"),
    ],
)
def test_address_is_completed(address: str, endpoint: str) -> None:
    assert build_endpoint(address) == endpoint
    assert build_endpoint(endpoint) == endpoint


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        *(
            (text, "such as https://host/v1")
            for text in ("", "host:8000", "//host/v1", "https:/host/v1", "https:///v1")
        ),
        *((text, "such as https://host/v1") for text in ("ftp://host", '"https://host"', "api.openai.com/v1")),
        *((f"https://{text}/v1", "Write it as") for text in ("?a", "host:port", "host:99999", "a..b", ".", "[::")),
        *((f"https://{text}/v1", "Write it as") for text in ("ho st", "ho%20st", "xn--", "<name>.openai.azure.com")),
        *((f"https://host/v1{text}", "Write it as") for text in (" x", "\u200b", "\\x", "`", "#", "#x")),
        ("https://secret:secret@host/v1", "AGENT_RUNTIME__LLM_API_KEY"),
        *((f"https://host{text}?api-version=secret", "the whole address") for text in ("", "/", "/openai")),
        ("https://x.openai.azure.com?api-version=secret", "the whole address"),
        *((f"https://host/v1/{text}", "end with /chat/completions") for text in ("completions", "responses", "chat")),
        *((f"https://host/v1/{text}", "end with /chat/completions") for text in ("messages", "models", "embeddings")),
        *(
            (f"https://host{text}", "end with /chat/completions")
            for text in ("/anthropic", "/v1/text/chatcompletion_v2")
        ),
        ("https://host/v1,https://other/v1", "end with /chat/completions"),
        ("https://host/api/generate", "end with /chat/completions"),
        ("https://host/v1beta/models/gemini:generateContent?key=secret", "end with /chat/completions"),
    ],
)
def test_other_address_is_refused_with_the_right_form(address: str, hint: str) -> None:
    with pytest.raises(ValueError, match="AGENT_RUNTIME__LLM_PROXY_URL") as refused:
        build_endpoint(address)
    assert hint in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("path", "header", "value"),
    [
        ("/api/v3/chat/completions?tenant=a%20b", "authorization", "Bearer theirs"),
        ("/openai/deployments/gpt/chat/completions?api-version=1", "api-key", "theirs"),
    ],
)
async def test_whole_address_is_requested_as_it_is(path: str, header: str, value: str) -> None:
    """Azure's older addresses take the key under another name only."""
    async with ScriptedLLM(respond_text("Hi.")) as llm:
        settings = Settings(_env_file=None, llm_model="m", llm_proxy_url=f"{llm.url}{path}", llm_api_key="theirs")
        async with open_model(settings) as model:
            assert (await model.ainvoke("Hi")).text == "Hi."
    (sent,) = llm.requests
    assert sent.path == path
    assert {name: sent.headers.get(name) for name in ("authorization", "api-key")} == {
        **dict.fromkeys(("authorization", "api-key")),
        header: value,
    }
