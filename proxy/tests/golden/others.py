"""Providers that speak OpenAI's dialect, each with an accent. Sources: their API references and price lists; the
recordings."""

from __future__ import annotations

from proxy.tests.golden import Golden, usd

FLASH = usd("0.30", "2.50", cached="0.03", audio_input="1")
PRO = usd("1.25", "10", cached="0.125", tiers=((200_001, usd("2.50", "15", cached="0.25")),))
SONNET = usd("3", "15", cached="0.30", cache_write="3.75", cache_write_1h="6")
DEEPSEEK = usd("0.28", "0.42", cached="0.028")
MINI = usd("0.15", "0.60", cached="0.075")

GEMINI = (
    Golden(
        "gemini-2.5-flash, thinking is in the total only",
        {"completion_tokens": 198, "prompt_tokens": 20, "total_tokens": 623},
        FLASH,
        1_513_500,  # 20 x 300 + (198 + 405) x 2500
    ),
    Golden(
        "gemini-2.5-pro, a short prompt",
        {"completion_tokens": 50, "prompt_tokens": 100, "total_tokens": 150},
        PRO,
        625_000,  # 100 x 1250 + 50 x 10000
    ),
    Golden(
        "gemini-2.5-pro, a prompt of more than 200,000 tokens",
        {"completion_tokens": 1000, "prompt_tokens": 250000, "total_tokens": 251000},
        PRO,
        640_000_000,  # 250000 x 2500 + 1000 x 15000
    ),
    Golden(
        "gemini-2.5-flash, cached without being asked",
        {
            "completion_tokens": 20,
            "prompt_tokens": 5000,
            "total_tokens": 5020,
            "prompt_tokens_details": {"cached_tokens": 4096},
        },
        FLASH,
        444_080,  # 904 x 300 + 4096 x 30 + 20 x 2500
    ),
    Golden(
        "gemini-2.5-flash, listens",
        {
            "completion_tokens": 10,
            "prompt_tokens": 1000,
            "total_tokens": 1010,
            "prompt_tokens_details": {"audio_tokens": 900},
        },
        FLASH,
        955_000,  # 100 x 300 + 900 x 1000 + 10 x 2500
    ),
    Golden(
        "gemini-1.5-flash-8b, half a nano-dollar a token",
        {"completion_tokens": 0, "prompt_tokens": 1, "total_tokens": 1},
        usd("0.0375", "0.15"),
        38,  # 1 x 37.5 + 0.5
    ),
)

CHINESE = (
    Golden(
        "deepseek-chat, cache hit and miss",
        {
            "prompt_tokens": 90,
            "completion_tokens": 40,
            "total_tokens": 130,
            "prompt_tokens_details": {"cached_tokens": 64},
            "completion_tokens_details": {"reasoning_tokens": 31},
            "prompt_cache_hit_tokens": 64,
            "prompt_cache_miss_tokens": 26,
        },
        DEEPSEEK,
        25_872,  # 26 x 280 + 64 x 28 + 40 x 420
    ),
    Golden(
        "deepseek-chat, hit and miss in its own fields only",
        {
            "prompt_tokens": 1000,
            "completion_tokens": 100,
            "total_tokens": 1100,
            "prompt_cache_hit_tokens": 960,
            "prompt_cache_miss_tokens": 40,
        },
        DEEPSEEK,
        80_080,  # 40 x 280 + 960 x 28 + 100 x 420
    ),
    Golden(
        "deepseek-reasoner, all missed",
        {
            "prompt_tokens": 16,
            "completion_tokens": 1500,
            "total_tokens": 1516,
            "completion_tokens_details": {"reasoning_tokens": 1400},
            "prompt_cache_hit_tokens": 0,
            "prompt_cache_miss_tokens": 16,
        },
        usd("0.55", "2.19", cached="0.14"),
        3_293_800,  # 16 x 550 + 1500 x 2190
    ),
    Golden(
        "kimi-k2, cached",
        {"prompt_tokens": 30, "completion_tokens": 2, "total_tokens": 32, "cached_tokens": 19},
        usd("0.60", "2.50", cached="0.15"),
        14_450,  # 11 x 600 + 19 x 150 + 2 x 2500
    ),
    Golden(
        "qwen3-max, writes to its cache",
        {
            "prompt_tokens": 1621,
            "completion_tokens": 50,
            "total_tokens": 1671,
            "prompt_tokens_details": {
                "cached_tokens": 0,
                "cache_creation_input_tokens": 1605,
                "cache_creation": {"ephemeral_5m_input_tokens": 1605},
                "cache_type": "ephemeral",
            },
        },
        usd("1.20", "6", cached="0.12", cache_write="1.50"),
        2_726_700,  # 16 x 1200 + 1605 x 1500 + 50 x 6000
    ),
    Golden(
        "glm-4.6, cached",
        {
            "prompt_tokens": 1200,
            "completion_tokens": 300,
            "total_tokens": 1500,
            "prompt_tokens_details": {"cached_tokens": 800},
        },
        usd("0.60", "2.20", cached="0.11"),
        988_000,  # 400 x 600 + 800 x 110 + 300 x 2200
    ),
)

FAST = (
    Golden(
        "groq, llama-3.3-70b, whole",
        {
            "queue_time": 0.037493756,
            "prompt_tokens": 18,
            "prompt_time": 0.000680594,
            "completion_tokens": 556,
            "completion_time": 0.463333333,
            "total_tokens": 574,
            "total_time": 0.464013927,
        },
        usd("0.59", "0.79"),
        449_860,  # 18 x 590 + 556 x 790
    ),
    Golden(
        "groq, the last event of a stream has it in its own place",
        {
            "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
            "x_groq": {"id": "req_01k8", "usage": {"prompt_tokens": 38, "completion_tokens": 24, "total_tokens": 62}},
        },
        usd("0.59", "0.79"),
        41_380,  # 38 x 590 + 24 x 790
        "reply",
    ),
    Golden(
        "groq, kimi-k2 with a cached prompt",
        {
            "prompt_tokens": 4641,
            "completion_tokens": 1817,
            "total_tokens": 6458,
            "prompt_tokens_details": {"cached_tokens": 4608},
        },
        usd("1", "3", cached="0.50"),
        7_788_000,  # 33 x 1000 + 4608 x 500 + 1817 x 3000
    ),
    Golden(
        "cerebras, gpt-oss-120b",
        {
            "prompt_tokens": 86,
            "completion_tokens": 212,
            "total_tokens": 298,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
        },
        usd("0.35", "0.75"),
        189_100,  # 86 x 350 + 212 x 750
    ),
    Golden(
        "together, llama-3.3-70b",
        {"prompt_tokens": 2040, "completion_tokens": 100, "total_tokens": 2140, "cached_tokens": 0},
        usd("0.88", "0.88"),
        1_883_200,  # 2040 x 880 + 100 x 880
    ),
    Golden(
        "fireworks, deepseek-v3, details are null",
        {"prompt_tokens": 100, "total_tokens": 200, "completion_tokens": 100, "prompt_tokens_details": None},
        usd("0.90", "0.90"),
        180_000,  # 100 x 900 + 100 x 900
    ),
)

EUROPEAN = (
    Golden(
        "mistral-small, the example of its API reference",
        {"prompt_tokens": 16, "completion_tokens": 34, "total_tokens": 50},
        usd("0.10", "0.30"),
        11_800,  # 16 x 100 + 34 x 300
    ),
    Golden(
        "voxtral-small: the seconds of audio are billed by their tokens",
        {"prompt_audio_seconds": 4, "prompt_tokens": 60, "total_tokens": 80, "completion_tokens": 20},
        usd("0.10", "0.30"),
        12_000,  # 60 x 100 + 20 x 300
    ),
    Golden(
        "magistral-medium, no limit to its thoughts",
        {"prompt_tokens": 10, "completion_tokens": 4000, "total_tokens": 4010, "prompt_audio_seconds": {}},
        usd("2", "5"),
        20_020_000,  # 10 x 2000 + 4000 x 5000
    ),
    Golden(
        "mistral-embed",
        {"prompt_tokens": 15, "total_tokens": 15, "completion_tokens": 0},
        usd("0.10"),
        1_500,  # 15 x 100
        "embeddings",
    ),
)

SEARCHING = (
    Golden(
        "grok-3-mini, reasoning is in the total only",
        {
            "prompt_tokens": 32,
            "completion_tokens": 9,
            "total_tokens": 135,
            "prompt_tokens_details": {"text_tokens": 32, "audio_tokens": 0, "image_tokens": 0, "cached_tokens": 6},
            "completion_tokens_details": {"reasoning_tokens": 94, "audio_tokens": 0},
            "num_sources_used": 0,
        },
        usd("0.30", "0.50", cached="0.075"),
        59_750,  # 26 x 300 + 6 x 75 + (9 + 94) x 500
    ),
    Golden(
        "grok-4, eight sources of its live search",
        {"prompt_tokens": 700, "completion_tokens": 300, "total_tokens": 1000, "num_sources_used": 8},
        usd("3", "15", cached="0.75", tools={"sources": "0.025"}),
        206_600_000,  # 700 x 3000 + 300 x 15000 + 8 x 25000000
    ),
    Golden(
        "grok-2-vision, an image costs what its tokens cost",
        {
            "prompt_tokens": 1032,
            "completion_tokens": 20,
            "total_tokens": 1052,
            "prompt_tokens_details": {"text_tokens": 8, "audio_tokens": 0, "image_tokens": 1024, "cached_tokens": 0},
        },
        usd("2", "10"),
        2_264_000,  # 1032 x 2000 + 20 x 10000
    ),
    Golden(
        "sonar, a fee for each call",
        {"prompt_tokens": 14, "completion_tokens": 70, "total_tokens": 84, "search_context_size": "low"},
        usd("1", "1", request="0.005"),
        5_084_000,  # 14 x 1000 + 70 x 1000 + 5000000
    ),
    Golden(
        "sonar-deep-research: reasoning, citations and searches each have a price",
        {
            "prompt_tokens": 33,
            "completion_tokens": 7163,
            "total_tokens": 7196,
            "citation_tokens": 20016,
            "num_search_queries": 18,
            "reasoning_tokens": 73997,
        },
        usd("2", "8", reasoning="3", tools={"web_search": "0.005", "citation_tokens": "0.000002"}),
        409_393_000,  # 33 x 2000 + 7163 x 8000 + 73997 x 3000 + 20016 x 2000 + 18 x 5000000
    ),
)

GATEWAYS = (
    Golden(
        "openrouter, writes to a cache; its own figure of the cost is not ours",
        {
            "completion_tokens": 2,
            "completion_tokens_details": {"reasoning_tokens": 0},
            "cost": 0.95,
            "cost_details": {"upstream_inference_cost": 19},
            "prompt_tokens": 194,
            "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 100, "audio_tokens": 0},
            "total_tokens": 196,
        },
        SONNET,
        687_000,  # 94 x 3000 + 100 x 3750 + 2 x 15000
    ),
    Golden(
        "openrouter, gemini-2.5-flash-image draws in a chat",
        {
            "prompt_tokens": 8,
            "completion_tokens": 1300,
            "total_tokens": 1308,
            "completion_tokens_details": {"reasoning_tokens": 0, "image_tokens": 1290},
        },
        usd("0.30", "2.50", image_output="30"),
        38_727_400,  # 8 x 300 + 10 x 2500 + 1290 x 30000
    ),
    Golden(
        "openrouter, searched the web",
        {
            "prompt_tokens": 194,
            "completion_tokens": 50,
            "total_tokens": 244,
            "server_tool_use": {"web_search_requests": 1},
        },
        usd("0.15", "0.60", tools={"web_search": "0.02"}),
        20_059_100,  # 194 x 150 + 50 x 600 + 1 x 20000000
    ),
    Golden(
        "openrouter, a free model",
        {"prompt_tokens": 194, "completion_tokens": 50, "total_tokens": 244, "cost": 0},
        usd("0", "0"),
        0,
    ),
    Golden(
        "litellm in front of anthropic",
        {
            "prompt_tokens": 1200,
            "completion_tokens": 10,
            "total_tokens": 1210,
            "prompt_tokens_details": {"audio_tokens": None, "cached_tokens": 0, "text_tokens": None},
            "cache_creation_input_tokens": 1000,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 400},
        },
        SONNET,
        5_400_000,  # 200 x 3000 + 600 x 3750 + 400 x 6000 + 10 x 15000
    ),
    Golden(
        "cohere, command-a",
        {"prompt_tokens": 8, "completion_tokens": 25, "total_tokens": 33},
        usd("2.50", "10"),
        270_000,  # 8 x 2500 + 25 x 10000
    ),
    Golden("voyage-3.5, nothing but a total", {"total_tokens": 10}, usd("0.06"), 600, "embeddings"),  # 10 x 60
    Golden(
        "vllm, one's own machines at one's own price",
        {"prompt_tokens": 7, "total_tokens": 23, "completion_tokens": 16, "prompt_tokens_details": None},
        usd("0.20", "0.20"),
        4_600,  # 7 x 200 + 16 x 200
    ),
)

ODD = (
    Golden(
        "more cached tokens than prompt tokens",
        {
            "prompt_tokens": 500,
            "completion_tokens": 1,
            "total_tokens": 501,
            "prompt_tokens_details": {"cached_tokens": 900},
        },
        MINI,
        38_100,  # 500 x 75 + 1 x 600
    ),
    Golden(
        "fewer cached tokens than none",
        {"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": -4}},
        MINI,
        4_350,  # 9 x 150 + 5 x 600
    ),
    Golden("the completion is missing", {"prompt_tokens": 10, "total_tokens": 15}, MINI, 4_500),  # 10 x 150 + 5 x 600
    Golden("the prompt is missing", {"completion_tokens": 5, "total_tokens": 15}, MINI, 4_500),  # 10 x 150 + 5 x 600
    Golden(
        "details are lists",
        {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": [1], "completion_tokens_details": []},
        MINI,
        4_500,  # 10 x 150 + 5 x 600
    ),
    Golden(
        "more audio than completion",
        {"prompt_tokens": 1, "completion_tokens": 10, "completion_tokens_details": {"audio_tokens": 99}},
        usd("0.15", "0.60", audio_output="20"),
        200_150,  # 1 x 150 + 10 x 20000
    ),
    Golden(
        "counts that are texts, in places where they may be missing",
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": "15",
            "prompt_tokens_details": {"cached_tokens": "8", "audio_tokens": None},
            "server_tool_use": {"web_search_requests": "3"},
        },
        usd("0.15", "0.60", tools={"web_search": "0.01"}),
        4_500,  # 10 x 150 + 5 x 600
    ),
    Golden(
        "the largest numbers that are counts",
        {"prompt_tokens": 2147483647, "completion_tokens": 2147483647, "total_tokens": 4294967294},
        MINI,
        1_610_612_735_250,  # 2147483647 x 150 + 2147483647 x 600
    ),
    Golden(
        "two halves of a nano-dollar are one, not two",
        {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        usd("0.0005", "0.0005"),
        1,  # 1 x 0.5 + 1 x 0.5
    ),
    Golden(
        "tools that nobody has a price for",
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "server_tool_use": {"telescope_requests": 7, "images": 2, "batch": 1},
        },
        usd("0.15", "0.60", image="0.04", batch_percent=50),
        4_500,  # 10 x 150 + 5 x 600
    ),
    Golden(
        "the last event of a stream",
        {"prompt_tokens": 19, "completion_tokens": 13, "total_tokens": 32},
        MINI,
        10_650,  # 19 x 150 + 13 x 600
        "event",
    ),
)

CASES = (*GEMINI, *CHINESE, *FAST, *EUROPEAN, *SEARCHING, *GATEWAYS, *ODD)
