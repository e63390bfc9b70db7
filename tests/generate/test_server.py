"""Answers over HTTP, against a small real server on this machine."""

from __future__ import annotations

import base64
import io
import json
import logging
import time
from contextlib import closing
from email.utils import formatdate

import numpy as np
import pytest
from chat_server import by_seed, says, serving
from PIL import Image
from prompts import picture, video

from mmalign.errors import ConfigError, ModelError, RowError
from mmalign.formats.media import MediaRef
from mmalign.formats.prompt import Prompt
from mmalign.generate.chat_requests import RequestForm
from mmalign.generate.endpoint import Endpoint, Retries
from mmalign.generate.paid_answers import Kept, Log, PaidAnswers, Replay
from mmalign.generate.sampling import Sampling, seed_of
from mmalign.generate.server import ServerSampler
from mmalign.modalities.table import limits_below

SAMPLING = Sampling(max_new_tokens=9, temperature=0.5, top_k=3, stop=("END",))
FORM = RequestForm(model="big")
QUESTIONS = [Prompt.ask(f"question {k}", id=str(k)) for k in range(6)]


@pytest.fixture(autouse=True)
def straight_to_this_machine(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


class Waits(list):
    """Notes waits in place of waiting."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def asking(url, root=".", form=FORM, server=None, concurrency=4, **how):
    return ServerSampler(server or Endpoint(url, **how), form, limits_below(root), concurrency=concurrency)


def texts(sampler, prompts=QUESTIONS, **how):
    return [one.texts for one in sampler.sample(prompts, sampling=SAMPLING, **how)]


def test_every_answer_is_a_request_with_a_seed_of_its_own():
    with serving() as (url, record):
        answered = texts(asking(url), QUESTIONS[:2], n=2, seed=4)
    expected = [tuple(f"question {k} {seed_of(4, str(k), number)}" for number in (0, 1)) for k in (0, 1)]
    assert answered == expected
    body = next(body for body in record.bodies if body["seed"] == seed_of(4, "1", 0))
    assert body == {
        "model": "big",
        "messages": [{"role": "user", "content": "question 1"}],
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 1.0,
        "top_k": 3,
        "stop": ["END"],
        "seed": seed_of(4, "1", 0),
        "n": 1,
        "stream": False,
    }
    assert {header["path"] for header in record.headers} == {"/v1/chat/completions"}


def test_pictures_and_frames_of_videos_are_inlined_in_their_places(tmp_path):
    flat = np.full((30, 40, 3), 200, dtype=np.uint8)
    Image.fromarray(flat).save(tmp_path / "flat.png")
    prompt = Prompt.ask("what?", MediaRef(kind="image", uri="flat.png"), video(tmp_path, 3), id="0")
    with serving() as (url, record):
        texts(asking(url, tmp_path), [prompt])
    content = record.bodies[0]["messages"][0]["content"]
    assert [part["type"] for part in content] == ["image_url"] * 4 + ["text"]
    head, _, payload = content[0]["image_url"]["url"].partition(",")
    seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(payload))))
    assert head == "data:image/jpeg;base64"
    assert seen.shape == (30, 40, 3) and abs(seen.astype(int) - 200).max() <= 2


def test_a_request_over_the_cap_and_a_broken_picture_are_refused_and_the_others_are_answered(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    large = Prompt.ask("what?", picture(tmp_path, "large.png", 300, 300), id="large")
    broken = Prompt.ask("what?", MediaRef(kind="image", uri="broken.png"), id="broken")
    told = {}
    form = RequestForm(model="big", max_request_bytes=10_000)
    with serving() as (url, record):
        how = {"on_refused": lambda prompt, error: told.update({prompt.id: str(error)})}
        assert len(texts(asking(url, tmp_path, form), [large, QUESTIONS[0], broken], **how)) == 1
    assert "request is larger than the cap" in told["large"] and "server.max_request_mb allows 10,000" in told["large"]
    assert "images[0]: image is not in a known format" in told["broken"]
    assert len(record.bodies) == 1


def test_a_busy_server_is_asked_again_with_longer_waits_and_as_late_as_it_wishes():
    statuses = [(429, {"Retry-After": "7"}), (503, {}), (500, {}), (200, {})]
    waits = Waits()

    def mood(number, body):
        status, headers = statuses[number]
        return status, headers, says("here")

    with serving(mood) as (url, record):
        retries = Retries(first_wait_s=1.0)
        assert texts(asking(url, retries=retries, sleep=waits), QUESTIONS[:1]) == [("here",)]
    assert len(record.bodies) == 4
    assert waits[0] == 7.0
    assert 1.0 <= waits[1] <= 3.0 and 2.0 <= waits[2] <= 6.0


def test_waits_double_are_random_and_have_a_bound():
    retries = Retries(first_wait_s=2.0, longest_wait_s=30.0)
    assert [retries.wait_s(failures, None, 0.0) for failures in (1, 2, 3)] == [1.0, 2.0, 4.0]
    assert [retries.wait_s(failures, None, 1.0) for failures in (1, 2, 3)] == [3.0, 6.0, 12.0]
    assert retries.wait_s(9, None, 0.5) == 30.0
    assert retries.wait_s(1, 600.0, 0.5) == 30.0


def test_retry_after_may_be_a_date():
    waits = Waits()
    moods = [(503, {"Retry-After": formatdate(time.time() + 50, usegmt=True)}, {}), (200, {}, says("here"))]
    with serving(lambda number, body: moods[number]) as (url, _):
        texts(asking(url, sleep=waits), QUESTIONS[:1])
    assert 45 <= waits[0] <= 50


@pytest.mark.parametrize("broken", [b"<html>", b"[1]", b'{"choices": [{"mess'])
def test_an_answer_that_is_no_object_is_asked_for_again(broken):
    with serving(lambda number, body: (200, {}, broken if number == 0 else says("here"))) as (url, _):
        assert texts(asking(url, sleep=Waits()), QUESTIONS[:1]) == [("here",)]


def test_a_server_that_is_too_slow_has_not_answered():
    with serving(takes_s=0.5) as (url, _):
        sampler = asking(url, timeout_s=0.1, retries=Retries(attempts=2), sleep=Waits())
        with pytest.raises(RowError, match="server gave no answer .* 2 times; --resume asks again"):
            texts(sampler, QUESTIONS[:1])


def test_a_refused_request_is_that_rows_fault_and_a_wrong_key_is_not():
    def mood(number, body):
        bad = body["messages"][0]["content"] == "question 1"
        return (400, {}, {"error": "context is too long"}) if bad else by_seed(number, body)

    told = []
    with serving(mood) as (url, _):
        answered = texts(asking(url), on_refused=lambda prompt, error: told.append(str(error)))
    assert len(answered) == 5
    assert "server refuses the request (got 400)" in told[0] and "context is too long" in told[0]
    with (
        serving(lambda number, body: (401, {}, {"error": "bad key"})) as (url, _),
        pytest.raises(ModelError, match="HTTP 401.*check server.url, server.model and the key"),
    ):
        texts(asking(url), on_refused=lambda prompt, error: None)


def test_a_server_that_has_gone_stops_the_run():
    with serving() as (url, _):
        pass
    many = [Prompt.ask("what?", id=str(k)) for k in range(20)]
    told = []
    sampler = asking(url, retries=Retries(attempts=2), sleep=Waits())
    with pytest.raises(ModelError, match="gave no answer to 8 prompts on end.*--resume"):
        texts(sampler, many, on_refused=lambda prompt, error: told.append(error.reason))
    assert told == ["server gave no answer"] * 7


def test_the_key_goes_to_the_server_and_nowhere_else(monkeypatch, caplog, tmp_path):
    monkeypatch.setenv("MY_KEY", "sk-secret-123")

    def mood(number, body):
        return (400, {}, {"error": "key sk-secret-123 may not"}) if number else by_seed(number, body)

    told = []
    with caplog.at_level(logging.DEBUG), serving(mood) as (url, record):
        endpoint = Endpoint(url, key_name="MY_KEY")
        log = Log(tmp_path / "log.jsonl")
        server = PaidAnswers(endpoint, log=log, kept=Kept(tmp_path / "kept"))
        told_of = {"on_refused": lambda prompt, error: told.append(str(error))}
        texts(asking(url, server=server, concurrency=1), QUESTIONS[:2], **told_of)
        log.close()
    assert {header["Authorization"] for header in record.headers} == {"Bearer sk-secret-123"}
    written = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "secret" not in written + caplog.text + "".join(told) + repr(endpoint)
    assert "key *** may not" in told[0]


def test_a_redirect_is_not_followed(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret-123")
    with (
        serving() as (elsewhere, other),
        serving(lambda number, body: (307, {"Location": elsewhere}, {})) as (url, _),
        pytest.raises(ModelError, match="HTTP 307"),
    ):
        texts(asking(url, key_name="MY_KEY"), QUESTIONS[:1])
    assert other.bodies == []


def test_a_missing_key_and_a_wrong_address_are_refused_at_once():
    with pytest.raises(ConfigError, match="environment variable NO_SUCH_KEY, which is not set; export it"):
        Endpoint("http://localhost:1/v1", key_name="NO_SUCH_KEY")
    with pytest.raises(ConfigError, match="is no address of a server") as caught:
        Endpoint("https://user:pass-word@host/v1")
    assert "pass-word" not in str(caught.value)


def test_no_more_requests_are_under_way_than_allowed_and_answers_keep_their_order():
    many = [Prompt.ask(f"question {k}", id=str(k)) for k in range(12)]
    with serving(takes_s=0.02) as (url, record):
        answered = texts(asking(url, concurrency=3), many, n=2)
    assert [pair[0].split()[1] for pair in answered] == [str(k) for k in range(12)]
    assert record.most_under_way == 3


def test_a_killed_run_pays_for_nothing_twice(tmp_path):
    """The log alone is what a killed run leaves; its last line is cut short, and one request has no answer."""
    path = tmp_path / "log.jsonl"
    with serving() as (url, record):
        log = Log(path)
        first = texts(asking(url, server=PaidAnswers(Endpoint(url), log=log)), QUESTIONS[:3])
        log.sent("f" * 64)
        log.close()
        with path.open("ab") as file:
            file.write(b'{"received": "abc", "ans')
        again = Log(path)
        assert again.in_doubt == 1
        server = PaidAnswers(Endpoint(url), log=again)
        assert texts(asking(url, server=server))[:3] == first
        assert len(record.bodies) == 6 and server.asked == 3
        again.close()
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_request_is_logged_before_it_goes_out(tmp_path):
    path, seen = tmp_path / "log.jsonl", []

    def mood(number, body):
        seen.append(path.read_text())
        return by_seed(number, body)

    with serving(mood) as (url, _), closing(Log(path)) as log:
        texts(asking(url, server=PaidAnswers(Endpoint(url), log=log)), QUESTIONS[:1])
    assert list(json.loads(seen[0])) == ["sent"]


def test_kept_answers_serve_other_runs_and_replay_without_a_server(tmp_path):
    kept = Kept(tmp_path)
    with serving() as (url, record):
        first = texts(asking(url, server=PaidAnswers(Endpoint(url), kept=kept)), n=2)
        assert texts(asking(url, server=PaidAnswers(Endpoint(url), kept=kept)), n=2) == first
        assert len(record.bodies) == 12
    replay = asking(url, server=Replay(kept, url))
    assert texts(replay, n=2) == first
    with pytest.raises(RowError, match="no answer to this request is kept"):
        texts(replay, n=3)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (says(""), "answer is empty"),
        (says("  ", "length"), "answer is empty"),
        (says("", "content_filter"), "server withheld the answer"),
        (says("so on " * 100, "length"), "answer repeats itself without end"),
    ],
)
def test_useless_answers_are_named(answer, problem):
    with serving(lambda number, body: (200, {}, answer)) as (url, _):
        (made,) = asking(url).sample(QUESTIONS[:1])
    assert [error.reason for error in made.problems()] == [problem]


def test_log_probs_are_kept_where_the_server_gives_them():
    form = RequestForm(model="big", logprobs=True, length_name="max_completion_tokens")
    with serving(lambda number, body: (200, {}, says("a b", logprobs=[-0.5, -1.0]))) as (url, record):
        (made,) = asking(url, form=form).sample(QUESTIONS[:1])
    assert made.samples[0].logps == (-0.5, -1.0)
    assert record.bodies[0]["logprobs"] is True and "max_completion_tokens" in record.bodies[0]


def test_what_is_no_chat_completion_is_named():
    with serving(lambda number, body: (200, {}, {"answer": 42})) as (url, _), pytest.raises(RowError) as caught:
        texts(asking(url), QUESTIONS[:1])
    assert "server's answer is no chat completion" in str(caught.value)
