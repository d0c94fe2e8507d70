"""OpenAI and Azure OpenAI. Sources: platform.openai.com/docs/api-reference and /docs/pricing; the recordings."""

from __future__ import annotations

from proxy.tests.golden import Golden, usd

GPT_4O = usd("2.50", "10", cached="1.25")
GPT_4O_MINI = usd("0.15", "0.60", cached="0.075")
GPT_4_1 = usd("2", "8", cached="0.50", tools={"web_search": "0.01", "file_search": "0.0025"})
GPT_5 = usd("1.25", "10", cached="0.125", batch_percent=50)
GPT_5_NANO = usd("0.05", "0.40", cached="0.005", batch_percent=50)
O3 = usd("2", "8", cached="0.50")
GPT_4O_AUDIO = usd("2.50", "10", audio_input="40", audio_output="80")
GPT_AUDIO = usd("2.50", "10", audio_input="32", audio_output="64")
GPT_4O_MINI_AUDIO = usd("0.15", "0.60", audio_input="10", audio_output="20")
GPT_IMAGE_1 = usd("5", "40", cached="1.25", image_input="10")
GPT_IMAGE_1_5 = usd("5", "10", cached="1.25", image_input="8", image_output="32")

NOTHING_SPECIAL = {
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 0,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}

CHAT = (
    Golden(
        "gpt-4o-mini, a greeting",
        {"prompt_tokens": 19, "completion_tokens": 13, "total_tokens": 32, **NOTHING_SPECIAL},
        GPT_4O_MINI,
        10_650,  # 19 x 150 + 13 x 600
    ),
    Golden(
        "gpt-4o, most of the prompt cached",
        {
            "prompt_tokens": 2006,
            "completion_tokens": 300,
            "total_tokens": 2306,
            "prompt_tokens_details": {"cached_tokens": 1920},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
        GPT_4O,
        5_615_000,  # 86 x 2500 + 1920 x 1250 + 300 x 10000
    ),
    Golden(
        "o3, reasoning is part of the completion and billed once",
        {
            "prompt_tokens": 75,
            "completion_tokens": 1186,
            "total_tokens": 1261,
            "completion_tokens_details": {"reasoning_tokens": 1024},
        },
        O3,
        9_638_000,  # 75 x 2000 + 1186 x 8000
    ),
    Golden(
        "gpt-5, cached and reasoning",
        {
            "prompt_tokens": 2048,
            "completion_tokens": 700,
            "total_tokens": 2748,
            "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 640},
        },
        GPT_5,
        8_408_000,  # 1024 x 1250 + 1024 x 125 + 700 x 10000
    ),
    Golden(
        "gpt-5-nano, a few tokens",
        {"prompt_tokens": 9, "completion_tokens": 10, "total_tokens": 19, **NOTHING_SPECIAL},
        GPT_5_NANO,
        4_450,  # 9 x 50 + 10 x 400
    ),
    Golden(
        "gpt-4o, predicted output: rejected predictions are in the completion already",
        {
            "prompt_tokens": 228,
            "completion_tokens": 180,
            "total_tokens": 408,
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "accepted_prediction_tokens": 18,
                "rejected_prediction_tokens": 10,
            },
        },
        GPT_4O,
        2_370_000,  # 228 x 2500 + 180 x 10000
    ),
    Golden(
        "gpt-4o, two tools called at once",
        {"prompt_tokens": 81, "completion_tokens": 46, "total_tokens": 127, **NOTHING_SPECIAL},
        GPT_4O,
        662_500,  # 81 x 2500 + 46 x 10000
    ),
    Golden(
        "gpt-4.1, an image in the prompt is prompt tokens",
        {"prompt_tokens": 1117, "completion_tokens": 46, "total_tokens": 1163, **NOTHING_SPECIAL},
        GPT_4_1,
        2_602_000,  # 1117 x 2000 + 46 x 8000
    ),
    Golden(
        "gpt-4o-audio-preview, speech in and out",
        {
            "prompt_tokens": 88,
            "completion_tokens": 47,
            "total_tokens": 135,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 60},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 40},
        },
        GPT_4O_AUDIO,
        5_740_000,  # 28 x 2500 + 60 x 40000 + 7 x 10000 + 40 x 80000
    ),
    Golden(
        "gpt-audio, speech out only",
        {
            "prompt_tokens": 17,
            "completion_tokens": 150,
            "total_tokens": 167,
            "prompt_tokens_details": {"cached_tokens": 0, "text_tokens": 17, "image_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"text_tokens": 23, "audio_tokens": 127},
        },
        GPT_AUDIO,
        8_400_500,  # 17 x 2500 + 23 x 10000 + 127 x 64000
    ),
    Golden(
        "gpt-4o-mini-audio-preview",
        {
            "prompt_tokens": 420,
            "completion_tokens": 90,
            "total_tokens": 510,
            "prompt_tokens_details": {"text_tokens": 20, "audio_tokens": 400},
            "completion_tokens_details": {"text_tokens": 20, "audio_tokens": 70},
        },
        GPT_4O_MINI_AUDIO,
        5_415_000,  # 20 x 150 + 400 x 10000 + 20 x 600 + 70 x 20000
    ),
    Golden(
        "gpt-audio, cached text beside audio, and no price for cached tokens",
        {
            "prompt_tokens": 1500,
            "completion_tokens": 100,
            "total_tokens": 1600,
            "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 300},
            "completion_tokens_details": {"audio_tokens": 0},
        },
        GPT_AUDIO,
        13_600_000,  # 1200 x 2500 + 300 x 32000 + 100 x 10000
    ),
    Golden(
        "gpt-4o-search-preview, a fee for each call",
        {"prompt_tokens": 10, "completion_tokens": 200, "total_tokens": 210, **NOTHING_SPECIAL},
        usd("2.50", "10", request="0.025"),
        27_025_000,  # 10 x 2500 + 200 x 10000 + 25000000
    ),
    Golden(
        "gpt-4, before usage had details",
        {"prompt_tokens": 27, "completion_tokens": 10, "total_tokens": 37},
        usd("30", "60"),
        1_410_000,  # 27 x 30000 + 10 x 60000
    ),
    Golden(
        "gpt-3.5-turbo, the first example of the API reference",
        {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21},
        usd("0.50", "1.50"),
        22_500,  # 9 x 500 + 12 x 1500
    ),
    Golden(
        "a call that used nothing",
        {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0, **NOTHING_SPECIAL},
        usd("2.50", "10", request="0.025"),
        0,
    ),
    Golden(
        "azure, gpt-4o-mini",
        {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15, **NOTHING_SPECIAL},
        GPT_4O_MINI,
        3_600,  # 12 x 150 + 3 x 600
    ),
    Golden(
        "azure, gpt-4o with a cached prompt",
        {
            "prompt_tokens": 1566,
            "completion_tokens": 1518,
            "total_tokens": 3084,
            "prompt_tokens_details": {"audio_tokens": None, "cached_tokens": 1408},
            "completion_tokens_details": {"audio_tokens": None, "reasoning_tokens": 576},
        },
        GPT_4O,
        17_335_000,  # 158 x 2500 + 1408 x 1250 + 1518 x 10000
    ),
    Golden(
        "azure, o3-mini",
        {
            "prompt_tokens": 20,
            "completion_tokens": 1843,
            "total_tokens": 1863,
            "prompt_tokens_details": {"audio_tokens": 0, "cached_tokens": 0},
            "completion_tokens_details": {"audio_tokens": 0, "reasoning_tokens": 448},
        },
        usd("1.10", "4.40", cached="0.55"),
        8_131_200,  # 20 x 1100 + 1843 x 4400
    ),
)

TEXT = (
    Golden(
        "gpt-3.5-turbo-instruct, a legacy completion",
        {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
        usd("1.50", "2"),
        21_500,  # 5 x 1500 + 7 x 2000
        "completion",
    ),
    Golden(
        "davinci-002, scores a prompt and adds nothing",
        {"prompt_tokens": 5, "total_tokens": 5},
        usd("2", "2"),
        10_000,  # 5 x 2000
        "completion",
    ),
    Golden(
        "text-embedding-3-small",
        {"prompt_tokens": 8, "total_tokens": 8},
        usd("0.02"),
        160,  # 8 x 20
        "embeddings",
    ),
    Golden(
        "text-embedding-3-large, one token", {"prompt_tokens": 1, "total_tokens": 1}, usd("0.13"), 130, "embeddings"
    ),
    Golden(
        "text-embedding-ada-002, as long as it takes",
        {"prompt_tokens": 8191, "total_tokens": 8191},
        usd("0.10"),
        819_100,  # 8191 x 100
        "embeddings",
    ),
)

REPLIES = (
    Golden(
        "gpt-5, flex",
        {
            "choices": [],
            "service_tier": "flex",
            "usage": {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500},
        },
        GPT_5,
        3_125_000,  # (1000 x 1250 + 500 x 10000) / 2
        "reply",
    ),
    Golden(
        "gpt-5-nano, flex: half a nano-dollar is rounded up",
        {
            "choices": [],
            "service_tier": "flex",
            "usage": {
                "prompt_tokens": 1,
                "completion_tokens": 0,
                "total_tokens": 1,
                "prompt_tokens_details": {"cached_tokens": 1},
            },
        },
        GPT_5_NANO,
        3,  # 1 x 5 / 2 + 0.5
        "reply",
    ),
    Golden(
        "gpt-5, the default tier is the whole price",
        {
            "choices": [],
            "service_tier": "default",
            "usage": {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500},
        },
        GPT_5,
        6_250_000,  # 1000 x 1250 + 500 x 10000
        "reply",
    ),
    Golden(
        "gpt-4.1, a response",
        {
            "object": "response",
            "output": [{"type": "message"}],
            "service_tier": "default",
            "usage": {
                "input_tokens": 36,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": 87,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": 123,
            },
        },
        GPT_4_1,
        768_000,  # 36 x 2000 + 87 x 8000
        "reply",
    ),
    Golden(
        "gpt-4.1, a response that searched the web",
        {
            "object": "response",
            "output": [{"type": "web_search_call", "status": "completed"}, {"type": "message"}],
            "usage": {
                "input_tokens": 328,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": 356,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": 684,
            },
        },
        GPT_4_1,
        13_504_000,  # 328 x 2000 + 356 x 8000 + 1 x 10000000
        "reply",
    ),
    Golden(
        "gpt-4.1, a response that searched files",
        {
            "object": "response",
            "output": [{"type": "file_search_call", "queries": ["deep research"]}, {"type": "message"}],
            "usage": {
                "input_tokens": 18307,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": 348,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": 18655,
            },
        },
        GPT_4_1,
        41_898_000,  # 18307 x 2000 + 348 x 8000 + 1 x 2500000
        "reply",
    ),
    Golden(
        "o3, a response with reasoning",
        {
            "object": "response",
            "output": [{"type": "reasoning", "summary": []}, {"type": "message"}],
            "usage": {
                "input_tokens": 81,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": 1035,
                "output_tokens_details": {"reasoning_tokens": 832},
                "total_tokens": 1116,
            },
        },
        O3,
        8_442_000,  # 81 x 2000 + 1035 x 8000
        "reply",
    ),
    Golden(
        "o4-mini-deep-research, three searches, and part of the prompt cached",
        {
            "object": "response",
            "output": [{"type": "reasoning"}, *[{"type": "web_search_call"}] * 3, {"type": "message"}],
            "usage": {
                "input_tokens": 60506,
                "input_tokens_details": {"cached_tokens": 506},
                "output_tokens": 22883,
                "output_tokens_details": {"reasoning_tokens": 20416},
                "total_tokens": 83389,
            },
        },
        usd("2", "8", cached="0.50", tools={"web_search": "0.01"}),
        333_317_000,  # 60000 x 2000 + 506 x 500 + 22883 x 8000 + 3 x 10000000
        "reply",
    ),
    Golden(
        "gpt-image-1, an edit",
        {
            "created": 1713833628,
            "data": [{"b64_json": "iVBORw0KGgo="}],
            "usage": {
                "total_tokens": 100,
                "input_tokens": 50,
                "output_tokens": 50,
                "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
            },
        },
        GPT_IMAGE_1,
        2_450_000,  # 10 x 5000 + 40 x 10000 + 50 x 40000
        "reply",
    ),
    Golden(
        "gpt-image-1, a square picture of high quality",
        {
            "created": 1713833628,
            "data": [{"b64_json": "iVBORw0KGgo="}],
            "quality": "high",
            "usage": {
                "total_tokens": 4190,
                "input_tokens": 30,
                "output_tokens": 4160,
                "input_tokens_details": {"text_tokens": 30, "image_tokens": 0},
            },
        },
        GPT_IMAGE_1,
        166_550_000,  # 30 x 5000 + 4160 x 40000
        "reply",
    ),
    Golden(
        "gpt-image-1.5, text and pictures on both sides",
        {
            "created": 1766000000,
            "data": [{"b64_json": "iVBORw0KGgo="}],
            "usage": {
                "total_tokens": 1656,
                "input_tokens": 400,
                "output_tokens": 1256,
                "input_tokens_details": {"text_tokens": 77, "image_tokens": 323},
                "output_tokens_details": {"text_tokens": 200, "image_tokens": 1056},
            },
        },
        GPT_IMAGE_1_5,
        38_761_000,  # 77 x 5000 + 323 x 8000 + 200 x 10000 + 1056 x 32000
        "reply",
    ),
    Golden(
        "dall-e-3, by the picture",
        {"created": 1589478378, "data": [{"url": "https://images.example/1.png", "revised_prompt": "A cat"}]},
        usd("0", image="0.04"),
        40_000_000,  # 1 x 40000000
        "reply",
    ),
    Golden(
        "dall-e-2, four pictures",
        {"created": 1589478378, "data": [{"url": f"https://images.example/{number}.png"} for number in range(4)]},
        usd("0", image="0.02"),
        80_000_000,  # 4 x 20000000
        "reply",
    ),
)
CASES = (*CHAT, *TEXT, *REPLIES)
