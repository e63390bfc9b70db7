"""A small chat-completions server on this machine, with the moods that servers have."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Mood = Callable[[int, dict[str, Any]], tuple[int, dict[str, str], Any]]
"""(number of the request, its body) -> status, headers, answer; the answer may be bytes."""


class ChatServer:
    """Counts requests, and how many are under way at a time."""

    def __init__(self, mood: Mood, takes_s: float = 0.0) -> None:
        self.mood, self.takes_s = mood, takes_s
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()


def says(text: str, finish: str = "stop", logprobs: list[float] | None = None) -> dict[str, Any]:
    choice: dict[str, Any] = {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
    if logprobs is not None:
        choice["logprobs"] = {"content": [{"token": "x", "logprob": value} for value in logprobs]}
    return {"choices": [choice]}


def by_seed(number: int, body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
    """Answer with the question's words and the seed, as a server that honours seeds."""
    content = body["messages"][-1]["content"]
    words = content if isinstance(content, str) else next(part["text"] for part in content if part["type"] == "text")
    return 200, {}, says(f"{words} {body['seed']}")


@contextmanager
def serving(mood: Mood = by_seed, **how: Any) -> Iterator[tuple[str, ChatServer]]:
    """Serve on a free port of this machine; yield the address and the record of what came in."""
    state = ChatServer(mood, **how)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state.lock:
                number = len(state.bodies)
                state.bodies.append(body)
                state.headers.append({**dict(self.headers), "path": self.path})
                state.under_way += 1
                state.most_under_way = max(state.most_under_way, state.under_way)
            time.sleep(state.takes_s)
            status, headers, answer = state.mood(number, body)
            with state.lock:
                state.under_way -= 1
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
