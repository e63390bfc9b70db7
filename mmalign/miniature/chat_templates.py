"""Chat templates that place turns, media and turn ends as each real family does, without tools or dates."""

from __future__ import annotations


def _say(image: str, video: str = "") -> str:
    """Return a Jinja macro `say(content)`: parts in their own order, media as the given placeholder."""
    return (
        "{%- macro say(content) -%}"
        "{%- if content is string -%}{{- content -}}"
        "{%- else -%}{%- for part in content -%}"
        "{%- if part.type == 'image' -%}{{- '" + image + "' -}}"
        "{%- elif part.type == 'video' -%}{{- '" + video + "' -}}"
        "{%- elif part.type == 'text' -%}{{- part.text -}}"
        "{%- endif -%}{%- endfor -%}{%- endif -%}"
        "{%- endmacro -%}"
    )


def _say_media_first(image: str, video: str = "") -> str:
    """Return a Jinja macro `say(content)` that puts all media before the text, as the LLaVA templates do."""
    return (
        "{%- macro say(content) -%}"
        "{%- if content is string -%}{{- content -}}"
        "{%- else -%}"
        "{%- for part in content if part.type == 'image' -%}{{- '" + image + "' -}}{%- endfor -%}"
        "{%- for part in content if part.type == 'video' -%}{{- '" + video + "' -}}{%- endfor -%}"
        "{%- for part in content if part.type == 'text' -%}{{- part.text -}}{%- endfor -%}"
        "{%- endif -%}"
        "{%- endmacro -%}"
    )


def _chatml(say: str, after_role: str = "\\n", after_turn: str = "\\n", default_system: bool = False) -> str:
    system = (
        "{%- if messages[0].role != 'system' -%}"
        "{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}{%- endif -%}"
    )
    return (
        say
        + (system if default_system else "")
        + "{%- for message in messages -%}"
        + "{{- '<|im_start|>' + message.role + '"
        + after_role
        + "' + say(message.content) "
        + "+ '<|im_end|>"
        + after_turn
        + "' -}}"
        + "{%- endfor -%}"
        + "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
    )


_QWEN_PARTS = _say("<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>")
QWEN_VL = _chatml(_QWEN_PARTS, default_system=True)
QWEN_VL_WITHOUT_SYSTEM = _chatml(_QWEN_PARTS)
QWEN_TEXT = _chatml(_say(""), default_system=True)
INTERNVL = _chatml(_say("<IMG_CONTEXT>\\n", "<video>\\n"))
LLAVA_ONEVISION = _chatml(_say_media_first("<image>\\n", "<video>\\n"))

LLAVA = (
    _say_media_first("<image>\\n")
    + "{%- for message in messages -%}"
    + "{%- if message.role == 'system' -%}{{- say(message.content) + ' ' -}}"
    + "{%- elif message.role == 'user' -%}{{- 'USER: ' + say(message.content) + ' ' -}}"
    + "{%- else -%}{{- 'ASSISTANT: ' + say(message.content) + '</s>' -}}{%- endif -%}"
    + "{%- endfor -%}"
    + "{%- if add_generation_prompt -%}{{- 'ASSISTANT:' -}}{%- endif -%}"
)

_INST_TURNS = (
    "{%- for message in messages -%}"
    "{%- if message.role == 'system' -%}{{- '[SYSTEM_PROMPT]' + say(message.content) + '[/SYSTEM_PROMPT]' -}}"
    "{%- elif message.role == 'user' -%}{{- '[INST]' + say(message.content) + '[/INST]' -}}"
    "{%- else -%}{{- say(message.content) + '</s>' -}}{%- endif -%}"
    "{%- endfor -%}"
)
MISTRAL = _say("") + "{{- '<s>' -}}" + _INST_TURNS
MISTRAL3 = _say("[IMG]") + "{{- '<s>' -}}" + _INST_TURNS
LLAVA_NEXT = (
    _say_media_first("<image>\\n")
    + "{%- for message in messages -%}"
    + "{%- if message.role == 'system' -%}{{- '<<SYS>>\\n' + say(message.content) + '\\n<</SYS>>\\n\\n' -}}"
    + "{%- elif message.role == 'user' -%}{{- '[INST] ' + say(message.content) + ' [/INST]' -}}"
    + "{%- else -%}{{- ' ' + say(message.content) + '</s>' -}}{%- endif -%}"
    + "{%- endfor -%}"
)


def _utterances(start: str) -> str:
    starts_with_image = "message.content is not string and message.content[0].type == 'image'"
    return (
        _say("<image>", "<video>")
        + "{{- '"
        + start
        + "' -}}"
        + "{%- for message in messages -%}"
        + "{%- set colon = ':' if "
        + starts_with_image
        + " else ': ' -%}"
        + "{{- message.role | capitalize + colon + say(message.content) + '<end_of_utterance>\\n' -}}"
        + "{%- endfor -%}"
        + "{%- if add_generation_prompt -%}{{- 'Assistant:' -}}{%- endif -%}"
    )


IDEFICS3 = _utterances("<|begin_of_text|>")
SMOLVLM = _utterances("<|im_start|>")


def _gemma(say: str) -> str:
    return (
        say
        + "{{- '<bos>' -}}"
        + "{%- set system = say(messages[0].content) + '\\n\\n' if messages[0].role == 'system' else '' -%}"
        + "{%- set turns = messages[1:] if system else messages -%}"
        + "{%- for message in turns -%}"
        + "{{- '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\\n' "
        + "+ (system if loop.first else '') + say(message.content) + '<end_of_turn>\\n' -}}"
        + "{%- endfor -%}"
        + "{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}"
    )


GEMMA2 = _gemma(_say(""))
GEMMA3 = _gemma(_say("<start_of_image>"))

LLAMA3 = (
    _say("")
    + "{{- '<|begin_of_text|>' -}}"
    + "{%- for message in messages -%}"
    + "{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + say(message.content) + '<|eot_id|>' -}}"
    + "{%- endfor -%}"
    + "{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}"
)
