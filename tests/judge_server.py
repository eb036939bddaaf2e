"""A chat-completions server of a few lines, and faults to put in front of it or of a real one.

The judge prefers the output that holds the word GOOD. It answers as it is asked to: by a tool call, by the log
probabilities of `m` and `M`, or by "Output (a)" and "Output (b)".
"""

import json
import re
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]
Fault = Callable[[int, Json], str | None]  # the number of the request (from 0) and its body -> a name in `_fail`


@dataclass
class JudgeServer:
    """What was asked, and what goes wrong: `fault` says which fault a request meets, None is a proper answer.

    `latency`: seconds that each reply takes.
    """

    fault: Fault = lambda number, request: None
    latency: float = 0.0
    upstream: str | None = None  # the address of a real server, which then gives the answers
    requests: list[Json] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def prompts(self) -> list[str]:
        return [request["messages"][-1]["content"] for request in self.requests]


@contextmanager
def serving(judge: JudgeServer) -> Iterator[JudgeServer]:
    """Serve on a free port of the loopback while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with judge.lock:
                number = len(judge.requests)
                judge.requests.append(request)
                judge.times.append(time.monotonic())
                judge.keys.append(self.headers.get("Authorization", ""))
            time.sleep(judge.latency)
            fault = judge.fault(number, request)
            if fault is not None:
                _fail(self, fault)
            else:
                _send(self, 200, _forwarded(judge.upstream, request) if judge.upstream else verdict(request))

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    judge.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield judge
    finally:
        server.shutdown()
        server.server_close()


def _forwarded(upstream: str, request: Json) -> Json:
    headers = {"Content-Type": "application/json"}
    post = urllib.request.Request(f"{upstream}/chat/completions", json.dumps(request).encode(), headers)
    with urllib.request.urlopen(post, timeout=120) as reply:
        answer: Json = json.load(reply)
    return answer


def _fail(handler: BaseHTTPRequestHandler, fault: str) -> None:
    key = handler.headers.get("Authorization", "").removeprefix("Bearer ")
    name, _, argument = fault.partition(":")
    if name == "hang":
        time.sleep(float(argument))
        handler.close_connection = True
    elif name == "cut":
        handler.send_response(200)
        handler.send_header("Content-Length", "5000")
        handler.end_headers()
        handler.wfile.write(b'{"choices": [{"mess')
        handler.close_connection = True
    elif name == "html":
        _send(handler, 200, "<html>Bad gateway</html>", kind="text/html")
    elif name == "empty":
        _send(handler, 200, {"choices": []})
    elif name == "mumble":
        _send(handler, 200, completion({"content": "Neither, I like turtles."}))
    else:
        body = {"error": {"message": f"no, said to {key}", "code": argument if argument.isidentifier() else None}}
        wait = argument if argument and not argument.isidentifier() else None
        _send(handler, int(name), body, retry_after=wait)


def _send(
    handler: BaseHTTPRequestHandler,
    status: int,
    body: Any,
    kind: str = "application/json",
    retry_after: str | None = None,
) -> None:
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(data)))
    if retry_after is not None:
        handler.send_header("Retry-After", retry_after)
    handler.end_headers()
    handler.wfile.write(data)


def verdict(request: Json) -> Json:
    """Judge by the word GOOD, in the form that was asked for."""
    prompt = request["messages"][-1]["content"]
    if request.get("logprobs"):
        first = re.split(r'"model_identifier": "M"', prompt)[0]
        likely, other = ("m", "M") if "GOOD" in first else ("M", "m")
        tokens = [{"token": likely, "logprob": -0.2231435513142097}, {"token": other, "logprob": -1.6094379124341003}]
        content = [{"token": likely, "logprob": tokens[0]["logprob"], "top_logprobs": tokens}]
        return completion({"content": likely}, logprobs={"content": content})
    task = prompt.split("# Task:")[1]
    name = "Output (a)" if "GOOD" in task.split("## Output (b)")[0] else "Output (b)"
    if "tools" in request:
        call = {"name": "print_best_model", "arguments": json.dumps({"best_output": name})}
        return completion({"content": None, "tool_calls": [{"id": "1", "type": "function", "function": call}]})
    return completion({"content": name})


def completion(message: Json, **more: Any) -> Json:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **message}, **more}
    return {
        **{"id": "x", "object": "chat.completion", "created": 0, "model": "fake-judge-1", "choices": [choice]},
        "usage": {"prompt_tokens": 400, "completion_tokens": 10, "total_tokens": 410},
    }
