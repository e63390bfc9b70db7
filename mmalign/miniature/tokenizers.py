"""A tokenizer made in code: the 256 bytes, whole words on request, and the special tokens of a family.

Every UTF-8 string survives encoding and decoding, offsets point into the string that was given, and nothing is read
from disk or network. Words (`words=`) become one token each where they stand alone; all other text falls to bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

_NAMED_BY_TRANSFORMERS = ("bos_token", "eos_token", "pad_token", "unk_token")
_LONGEST_INPUT_TOKENS = 32_768


def byte_level(
    named: Mapping[str, str],
    *,
    others: Iterable[str] = (),
    words: Iterable[str] = (),
    chat_template: str | None = None,
) -> PreTrainedTokenizerFast:
    """Build a byte-level tokenizer that knows some whole words.

    Args:
        named: special tokens by attribute: "eos_token", "pad_token", and those of the family ("image_token", ...).
        others: special tokens without an attribute ("<|im_start|>").
        words: each becomes one token with and one without a leading space.
        chat_template: Jinja template stored with the tokenizer.

    Returns:
        A fast tokenizer. Ids: bytes 0..255, then words in the given order, then special tokens.
    """
    vocabulary = {symbol: index for index, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    byte_symbols = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for word in words:
        for text in (word, " " + word):
            ((symbols, _),) = byte_symbols.pre_tokenize_str(text)
            vocabulary.setdefault(symbols, len(vocabulary))

    # No merges: a word is in the vocabulary as a whole (ignore_merges) or it is spelled in bytes.
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    special = dict.fromkeys([*named.values(), *others])
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])

    by_library = {name: token for name, token in named.items() if name in _NAMED_BY_TRANSFORMERS}
    by_family = {name: token for name, token in named.items() if name not in _NAMED_BY_TRANSFORMERS}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **by_library,
        extra_special_tokens=by_family,
        model_max_length=_LONGEST_INPUT_TOKENS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=chat_template,
    )
