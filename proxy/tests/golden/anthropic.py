"""Anthropic's Messages API. Sources, under platform.claude.com/docs/en: about-claude/pricing, build-with-claude/
prompt-caching and batch-processing, agents-and-tools/tool-use/web-search-tool; the recordings."""

from __future__ import annotations

from proxy.tests.golden import Golden, usd

SONNET = usd(
    "3",
    "15",
    cached="0.30",
    cache_write="3.75",
    cache_write_1h="6",
    tools={"web_search": "0.01"},
    batch_percent=50,
    tiers=((200_001, usd("6", "22.50", cached="0.60", cache_write="7.50", cache_write_1h="12")),),
)
OPUS = usd("5", "25", cached="0.50", cache_write="6.25", cache_write_1h="10", batch_percent=50)
NOTHING_CACHED = {
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
}

CASES = (
    Golden(
        "sonnet, the first example of the API reference",
        {"input_tokens": 2095, "output_tokens": 503},
        SONNET,
        13_830_000,  # 2095 x 3000 + 503 x 15000
        "message",
    ),
    Golden(
        "sonnet, cached: input_tokens are only what the cache had no part in",
        {
            "input_tokens": 50,
            "cache_creation_input_tokens": 248,
            "cache_read_input_tokens": 100000,
            "cache_creation": {"ephemeral_5m_input_tokens": 248, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 503,
            "service_tier": "standard",
        },
        SONNET,
        38_625_000,  # 50 x 3000 + 248 x 3750 + 100000 x 300 + 503 x 15000
        "message",
    ),
    Golden(
        "sonnet, part of it cached for five minutes and part for an hour",
        {
            "input_tokens": 2048,
            "cache_read_input_tokens": 1800,
            "cache_creation_input_tokens": 248,
            "output_tokens": 503,
            "cache_creation": {"ephemeral_5m_input_tokens": 148, "ephemeral_1h_input_tokens": 100},
        },
        SONNET,
        15_384_000,  # 2048 x 3000 + 1800 x 300 + 148 x 3750 + 100 x 6000 + 503 x 15000
        "message",
    ),
    Golden(
        "sonnet, all of it cached for an hour",
        {
            "input_tokens": 5,
            "cache_read_input_tokens": 0,
            "cache_creation_input_tokens": 12000,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 12000},
            "output_tokens": 100,
        },
        SONNET,
        73_515_000,  # 5 x 3000 + 12000 x 6000 + 100 x 15000
        "message",
    ),
    Golden(
        "an hour in the cache costs as five minutes where no price says otherwise",
        {
            "input_tokens": 5,
            "cache_creation_input_tokens": 100,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 100},
            "output_tokens": 1,
        },
        usd("3", "15", cache_write="3.75"),
        405_000,  # 5 x 3000 + 100 x 3750 + 1 x 15000
        "message",
    ),
    Golden(
        "sonnet, thinking is part of the output",
        {
            "input_tokens": 44,
            **NOTHING_CACHED,
            "output_tokens": 130,
            "output_tokens_details": {"thinking_tokens": 90},
            "service_tier": "standard",
        },
        SONNET,
        2_082_000,  # 44 x 3000 + 130 x 15000
        "message",
    ),
    Golden(
        "sonnet, one web search",
        {
            "input_tokens": 105,
            "output_tokens": 6039,
            "cache_read_input_tokens": 7123,
            "cache_creation_input_tokens": 7345,
            "server_tool_use": {"web_search_requests": 1},
        },
        SONNET,
        130_580_650,  # 105 x 3000 + 7123 x 300 + 7345 x 3750 + 6039 x 15000 + 1 x 10000000
        "message",
    ),
    Golden(
        "sonnet, a web fetch costs nothing but its tokens",
        {
            "input_tokens": 25039,
            "output_tokens": 931,
            "cache_read_input_tokens": 0,
            "cache_creation_input_tokens": 0,
            "server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 1},
        },
        SONNET,
        89_082_000,  # 25039 x 3000 + 931 x 15000
        "message",
    ),
    Golden(
        "opus, in a batch",
        {"input_tokens": 11, **NOTHING_CACHED, "output_tokens": 30, "service_tier": "batch"},
        OPUS,
        402_500,  # (11 x 5000 + 30 x 25000) / 2
        "message",
    ),
    Golden(
        "opus, in a batch, with a cache",
        {
            "input_tokens": 100,
            "cache_read_input_tokens": 1000,
            "cache_creation_input_tokens": 300,
            "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
            "output_tokens": 40,
            "service_tier": "batch",
        },
        OPUS,
        2_312_500,  # (100 x 5000 + 1000 x 500 + 100 x 6250 + 200 x 10000 + 40 x 25000) / 2
        "message",
    ),
    Golden(
        "sonnet, in a batch: searches cost the whole price",
        {
            "input_tokens": 1000,
            **NOTHING_CACHED,
            "output_tokens": 200,
            "service_tier": "batch",
            "server_tool_use": {"web_search_requests": 2},
        },
        SONNET,
        23_000_000,  # (1000 x 3000 + 200 x 15000) / 2 + 2 x 10000000
        "message",
    ),
    Golden(
        "claude-3-haiku, before there was a cache",
        {"input_tokens": 10, "output_tokens": 25},
        usd("0.25", "1.25", cached="0.03", cache_write="0.30"),
        33_750,  # 10 x 250 + 25 x 1250
        "message",
    ),
    Golden(
        "haiku, everything else is null",
        {
            "input_tokens": 400,
            "output_tokens": 120,
            "cache_read_input_tokens": None,
            "cache_creation_input_tokens": None,
            "cache_creation": None,
            "server_tool_use": None,
            "service_tier": None,
        },
        usd("1", "5", cached="0.10", cache_write="1.25"),
        1_000_000,  # 400 x 1000 + 120 x 5000
        "message",
    ),
    Golden(
        "sonnet, a long prompt makes everything dearer, and what was cached counts as prompt",
        {"input_tokens": 150000, "cache_read_input_tokens": 60000, "output_tokens": 1000},
        SONNET,
        958_500_000,  # 150000 x 6000 + 60000 x 600 + 1000 x 22500
        "message",
    ),
    Golden(
        "sonnet, the longest prompt that is not long",
        {"input_tokens": 199000, "cache_read_input_tokens": 1000, "output_tokens": 3},
        SONNET,
        597_345_000,  # 199000 x 3000 + 1000 x 300 + 3 x 15000
        "message",
    ),
    Golden(
        "opus 4, refused after the first token",
        {"input_tokens": 30, **NOTHING_CACHED, "output_tokens": 1, "service_tier": "standard"},
        usd("15", "75", cached="1.50", cache_write="18.75"),
        525_000,  # 30 x 15000 + 1 x 75000
        "message",
    ),
)
