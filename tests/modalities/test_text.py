import pytest

from mmalign.errors import RowError
from mmalign.modalities import text


def test_any_unicode_is_text():
    text.check("plain, 日本語, 👩‍👩‍👧, \0, \u202e")
    assert text.messages("a") == {"type": "text", "text": "a"}


def test_half_a_surrogate_pair_is_refused_with_its_place():
    with pytest.raises(RowError, match="prompt: text is not valid Unicode .*character 3 is half of a surrogate pair"):
        text.check("abc\ud83d!", field="prompt")
