"""The kinds of provider there are: one row each. Most speak OpenAI's dialect and need nothing but a base URL.

`base_url` is up to and including the version, as the provider documents it; "" where every customer has their own.
`keys` are the environment variables in which the provider's own tools look for the API key; `url_variable` is the one
for a base URL; `prices_id` is the provider's id in the data of the genai-prices package, "" when it is not there.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.providers.base import ADAPTERS, Adapter


@dataclass(frozen=True, slots=True)
class Preset:
    """`stream_options`: false for those that refuse the field, and send the usage of a stream without being asked."""

    kind: str
    label: str
    base_url: str = ""
    keys: tuple[str, ...] = ()
    prices_id: str = ""
    url_variable: str = ""
    adapter: str = "openai"
    stream_options: bool = True


# In the order in which people are offered them: the usual ones, the hosted ones by name, one's own machines, the echo.
_ROWS = (
    Preset("openai", "OpenAI", "https://api.openai.com/v1", ("OPENAI_API_KEY",), "openai", "OPENAI_BASE_URL"),
    Preset(
        "azure_openai",
        "Azure OpenAI",
        keys=("AZURE_OPENAI_API_KEY",),
        prices_id="azure",
        url_variable="AZURE_OPENAI_ENDPOINT",
        adapter="azure_openai",
    ),
    Preset(
        "anthropic",
        "Anthropic",
        "https://api.anthropic.com/v1",
        ("ANTHROPIC_API_KEY",),
        "anthropic",
        "ANTHROPIC_BASE_URL",
        adapter="anthropic",
    ),
    Preset(
        "alibaba",
        "Alibaba Model Studio",
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        ("DASHSCOPE_API_KEY",),
    ),
    Preset("baseten", "Baseten", "https://inference.baseten.co/v1", ("BASETEN_API_KEY",), "baseten"),
    Preset("cerebras", "Cerebras", "https://api.cerebras.ai/v1", ("CEREBRAS_API_KEY",), "cerebras"),
    Preset(
        "cohere",
        "Cohere",
        "https://api.cohere.ai/compatibility/v1",
        ("COHERE_API_KEY", "CO_API_KEY"),
        "cohere",
        stream_options=False,
    ),
    Preset("databricks", "Databricks", prices_id="databricks"),
    Preset("deepinfra", "DeepInfra", "https://api.deepinfra.com/v1/openai", ("DEEPINFRA_API_KEY",)),
    Preset("deepseek", "DeepSeek", "https://api.deepseek.com/v1", ("DEEPSEEK_API_KEY",), "deepseek"),
    Preset("fireworks", "Fireworks AI", "https://api.fireworks.ai/inference/v1", ("FIREWORKS_API_KEY",), "fireworks"),
    Preset(
        "gemini",
        "Google Gemini",
        "https://generativelanguage.googleapis.com/v1beta/openai",
        ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        "google",
    ),
    Preset("groq", "Groq", "https://api.groq.com/openai/v1", ("GROQ_API_KEY",), "groq"),
    Preset("huggingface", "Hugging Face", "https://router.huggingface.co/v1", ("HF_TOKEN",)),
    Preset("hyperbolic", "Hyperbolic", "https://api.hyperbolic.xyz/v1", ("HYPERBOLIC_API_KEY",)),
    Preset("minimax", "MiniMax", "https://api.minimax.io/v1", ("MINIMAX_API_KEY",), "minimax"),
    Preset("mistral", "Mistral AI", "https://api.mistral.ai/v1", ("MISTRAL_API_KEY",), "mistral", stream_options=False),
    Preset("moonshot", "Moonshot AI", "https://api.moonshot.ai/v1", ("MOONSHOT_API_KEY",), "moonshotai"),
    Preset("nebius", "Nebius Token Factory", "https://api.tokenfactory.nebius.com/v1", ("NEBIUS_API_KEY",)),
    Preset("novita", "Novita AI", "https://api.novita.ai/openai/v1", ("NOVITA_API_KEY",), "novita"),
    Preset("nvidia", "NVIDIA NIM", "https://integrate.api.nvidia.com/v1", ("NVIDIA_API_KEY",)),
    Preset("openrouter", "OpenRouter", "https://openrouter.ai/api/v1", ("OPENROUTER_API_KEY",), "openrouter"),
    Preset(
        "ovhcloud",
        "OVHcloud AI Endpoints",
        "https://oai.endpoints.kepler.ai.cloud.ovh.net/v1",
        ("OVH_AI_ENDPOINTS_ACCESS_TOKEN",),
        "ovhcloud",
    ),
    Preset("perplexity", "Perplexity", "https://api.perplexity.ai", ("PERPLEXITY_API_KEY",), "perplexity"),
    Preset("sambanova", "SambaNova", "https://api.sambanova.ai/v1", ("SAMBANOVA_API_KEY",)),
    Preset("scaleway", "Scaleway", "https://api.scaleway.ai/v1", ("SCW_SECRET_KEY",)),
    Preset("siliconflow", "SiliconFlow", "https://api.siliconflow.com/v1", ("SILICONFLOW_API_KEY",)),
    Preset("together", "Together AI", "https://api.together.xyz/v1", ("TOGETHER_API_KEY",), "together"),
    Preset("voyage", "Voyage AI", "https://api.voyageai.com/v1", ("VOYAGE_API_KEY",), "voyageai"),
    Preset("xai", "xAI", "https://api.x.ai/v1", ("XAI_API_KEY",), "x-ai"),
    Preset("zai", "Z.AI", "https://api.z.ai/api/paas/v4", ("ZAI_API_KEY",), "zai"),
    Preset("litellm", "LiteLLM proxy (yours)", "http://127.0.0.1:4000/v1", ("LITELLM_API_KEY",)),
    Preset("llama_cpp", "llama.cpp server (yours)", "http://127.0.0.1:8080/v1"),
    Preset("lmstudio", "LM Studio (yours)", "http://127.0.0.1:1234/v1"),
    Preset("ollama", "Ollama (yours)", "http://127.0.0.1:11434/v1"),
    Preset("sglang", "SGLang (yours)", "http://127.0.0.1:30000/v1"),
    Preset("vllm", "vLLM (yours)", "http://127.0.0.1:8000/v1"),
    Preset("echo", "Echo (answers by repeating, for trying out)", adapter="echo"),
)

PRESETS: dict[str, Preset] = {row.kind: row for row in _ROWS}
REFUSE_STREAM_OPTIONS = frozenset(row.kind for row in _ROWS if not row.stream_options)


def kinds() -> list[tuple[str, str]]:
    """(kind, label) of every kind, in the order to offer them."""
    return [(row.kind, row.label) for row in _ROWS]


def adapter_for(kind: str) -> Adapter:
    """Raises KeyError for a kind there is not."""
    return ADAPTERS[PRESETS[kind].adapter]


def default_base_url(kind: str) -> str:
    """The provider's usual address, "" when every customer has their own. Raises KeyError."""
    return PRESETS[kind].base_url


def environment_key(kind: str) -> tuple[str, ...]:
    """Names of the environment variables that may hold its API key, the first one first. Raises KeyError."""
    return PRESETS[kind].keys


def environment_url(kind: str) -> str:
    """Name of the environment variable that may hold its base URL, "" for none. Raises KeyError."""
    return PRESETS[kind].url_variable


def prices_id(kind: str) -> str:
    """Its id in the genai-prices data, "" when it has none. Raises KeyError."""
    return PRESETS[kind].prices_id
