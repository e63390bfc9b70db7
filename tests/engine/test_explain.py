"""What `data show` tells about a row."""

import json

from token_rows import png, row

from mmalign.formats.message import Message
from mmalign.formats.preference import Response, Span


def test_explain_is_ready_for_json(tokeniser):
    spans = (Span(start=0, end=1, weight=2.0),)
    made = tokeniser("qwen2_vl", max_length=500)
    preference = row(Message.of("user", 0, "Hm?"), media=[png(56, 28)], responses=(Response.of("é!", spans=spans), "b"))
    told = json.loads(json.dumps(made.explain(preference)))
    media = [entry for entry in told["prompt"] if entry["role"] == "media"]
    assert [(entry["text"], entry["count"]) for entry in media] == [("<|image_pad|>", 2)]
    assert "".join(entry["text"] for entry in told["prompt"] if entry["role"] == "prompt").endswith(
        "<|im_start|>assistant\n"
    )
    facts = {"field": "images[0]", "kind": "image", "width": 56, "height": 28}
    assert told["media"] == [{**facts, "name": told["media"][0]["name"]}]
    assert [token["weight"] for token in told["responses"][0]["tokens"]][:3] == [2.0, 2.0, 1.0]
    assert [response["level"] for response in told["responses"]] == [0, 1]
    assert told["lengths"]["media_tokens"] == 2 and told["lengths"]["max_length"] == 500
    assert told["lengths"]["turns_dropped"] == 0 and told["lengths"]["shrunk_to_pixels"] is None
    assert told["inputs"]["image_grid_thw"] == [1, 3]
