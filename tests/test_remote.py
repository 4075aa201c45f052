"""Models behind an address, asked through every kind of trouble that a network makes."""

from __future__ import annotations

import copy
import email.utils
import http.client
import json
import pickle
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

import askwhy as aw
from askwhy.errors import FileError, InputError, ModelError, UnsupportedError
from askwhy.models import transport
from askwhy.models.transport import Service, hopeless, seconds_of

WEIGHTS = np.random.default_rng(0).normal(size=(4, 3))
TOKEN = "s3cret/tok en+"


def local(x: np.ndarray) -> np.ndarray:
    """The model that the server runs."""
    z = (np.asarray(x, np.float64)[..., None] * WEIGHTS).sum(-2)
    return z / (1 + abs(z))  # to the last bit, whatever else is in the batch


def metadata(inputs=(("x", "FP64", [-1, 4]),), outputs=(("scores", "FP64", [-1, 3]),)) -> dict:
    tensors = [[dict(zip(("name", "datatype", "shape"), one, strict=True)) for one in some] for some in (inputs, outputs)]
    return {"name": "m", "versions": ["1"], "platform": "test", "inputs": tensors[0], "outputs": tensors[1]}


def of_protocol(body: dict) -> tuple[list, dict]:
    """The rows that a request holds, and the reply to it."""
    x = np.array(body["inputs"][0]["data"], np.float64).reshape(body["inputs"][0]["shape"])
    scores = local(x)
    return x.tolist(), {"outputs": [{"name": "scores", "datatype": "FP64", "shape": list(scores.shape), "data": scores.ravel().tolist()}]}


class Server(ThreadingHTTPServer):
    """Speaks the protocol. `faults` gives what goes wrong with the request of each number; rows that were answered well are counted."""

    daemon_threads, block_on_close, request_queue_size = True, False, 64

    def __init__(self, port: int = 0, before: Server | None = None) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        new = {"answered": Counter(), "arrivals": [], "bodies": [], "sent": [], "faults": {}, "number": 0, "active": 0, "most": 0, "opened": 0}
        new |= {"delay": 0.0, "answer": of_protocol, "metadata": metadata(), "on_request": None}
        self.__dict__.update(new if before is None else {name: before.__dict__[name] for name in new})
        self.lock, self.open = threading.Lock(), set()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v2/models/m"

    def handle_error(self, request, client_address) -> None:
        """A client that went away is part of the tests."""

    def kill(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in list(self.open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def asked_twice(self) -> list:
        return [row for row, count in self.answered.items() if count > 1]


class Handler(BaseHTTPRequestHandler):
    protocol_version, disable_nagle_algorithm = "HTTP/1.1", True
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.request)
        with self.server.lock:
            self.server.opened += 1

    def finish(self) -> None:
        super().finish()
        self.server.open.discard(self.request)

    def log_message(self, *args) -> None:
        pass

    def do_GET(self) -> None:
        self.server.sent.append(dict(self.headers))
        self.reply(200 if self.path == "/v2/models/m" else 404, self.server.metadata if self.path == "/v2/models/m" else {"error": "no such model"})

    def do_POST(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with server.lock:
            number, server.number = server.number, server.number + 1
            server.active += 1
            server.most = max(server.most, server.active)
            server.arrivals.append(time.monotonic())
        server.sent.append(dict(self.headers))
        if server.on_request:
            server.on_request(number)
        time.sleep(server.delay)
        with server.lock:
            server.active -= 1
        fault = server.faults.get(number) if isinstance(server.faults, dict) else server.faults(number)
        if fault:
            return fault(self)
        body = json.loads(body)
        server.bodies.append(body)
        rows, answer = server.answer(body)
        with server.lock:  # before the client can go on
            server.answered.update(map(repr, rows))
        self.reply(200, answer)

    def reply(self, status: int, body, headers=()) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (("Content-Length", str(len(content))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def status(code: int, *headers: tuple[str, str], body={"error": "not now"}):  # noqa: B006
    return lambda handler: handler.reply(code, body, headers)


def slow(handler: Handler) -> None:
    time.sleep(0.5)
    handler.close_connection = True


def cut(handler: Handler) -> None:
    handler.request.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def cut_in_the_middle(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"outputs": [')
    cut(handler)


def drip(handler: Handler) -> None:
    """A whole reply, if one waits for it, and a wrong one."""
    handler.send_response(200)
    handler.send_header("Content-Length", "10")
    handler.end_headers()
    for part in (b" ",) * 8 + (b"{}",):
        time.sleep(0.06)
        handler.wfile.write(part)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(transport, "FIRST_WAIT", 0.02)
    monkeypatch.setenv("MY_TOKEN", TOKEN)
    started = Server()
    yield started
    started.kill()


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(40, 4))


def scores(model: aw.models.Model, x: object) -> np.ndarray:
    items = model.prepare(x)
    return model.outputs(items, items.batch)


def no_wait(batch: np.ndarray) -> dict:
    return {"rows": batch}


def simple(server: Server) -> None:
    """Let the server speak a language of its own."""
    server.answer = lambda body: (body["rows"], {"scores": local(np.array(body["rows"])).tolist()})


# ---- the Open Inference Protocol ------------------------------------------------------------------------------------


def test_an_address_is_a_model(server, x):
    model = aw.wrap(server.url, labels=["a", "b", "c"])
    np.testing.assert_array_equal(scores(model, x), local(x))
    server.bodies.sort(key=lambda body: -len(body["inputs"][0]["data"]))
    assert server.bodies[0]["inputs"][0] == {"name": "x", "shape": [32, 4], "datatype": "FP64", "data": x[:32].ravel().tolist()}
    assert [body["inputs"][0]["shape"] for body in server.bodies] == [[32, 4], [8, 4]]
    assert model.labels == ("a", "b", "c")
    assert server.asked_twice() == []


def test_the_address_may_end_in_infer_or_a_slash(server, x):
    for url in (server.url + "/", server.url + "/infer"):
        np.testing.assert_array_equal(scores(aw.remote(url), x), local(x))


def test_an_explanation_over_the_network_is_that_of_the_model_itself(server, x):
    model = aw.remote(server.url, batch=7)
    for target in (None, 2):
        far, near = (aw.occlusion(m, x[:3], target, background=x[5:25]) for m in (model, local))
        np.testing.assert_array_equal(far.values, near.values)
        np.testing.assert_array_equal(far.prediction, near.prediction)
        assert far.model_calls == near.model_calls


@pytest.mark.parametrize(
    ("datatype", "given", "sent"),
    [
        ("FP32", np.float64(0.1), np.float32(0.1)),
        ("FP64", np.float32(0.5), 0.5),
        ("INT64", 3.0, 3),
        ("INT64", np.int8(-3), -3),
        ("UINT8", 255, 255),
        ("BOOL", True, True),
        ("BYTES", "wörd", "wörd"),
    ],
)
def test_inputs_are_sent_in_the_type_that_the_model_takes(server, datatype, given, sent):
    server.metadata = metadata([("x", datatype, [-1, 2])], ())
    server.answer = lambda body: ([], {"outputs": [{"name": "scores", "datatype": "FP32", "shape": [1, 1], "data": [1.5]}]})
    values = np.array([[given] * 2], dtype=object if isinstance(given, str) else np.asarray(given).dtype)
    assert scores(aw.wrap(server.url), values).tolist() == [[1.5]]
    assert server.bodies[0]["inputs"] == [{"name": "x", "shape": [1, 2], "datatype": datatype, "data": [sent] * 2}]


@pytest.mark.parametrize(
    ("datatype", "value", "says"),
    [
        ("INT64", 0.5, "'x' takes INT64, which cannot hold x's 0.5"),
        ("UINT8", 256, "cannot hold x's 256"),
        ("FP16", 1e9, "cannot hold x's 1000000000.0"),
        ("BYTES", 1.0, "takes BYTES, and x holds FP64"),
        ("FP32", "a", "takes FP32, and x holds BYTES"),
    ],
)
def test_a_value_that_the_model_cannot_take_is_refused(server, datatype, value, says):
    server.metadata = metadata([("x", datatype, [-1, 2])])
    with pytest.raises(InputError, match=says):
        scores(aw.wrap(server.url), np.full((2, 2), value, dtype=object if isinstance(value, str) else None))
    assert server.number == 0


def test_a_model_that_tells_no_inputs_gets_the_type_of_x(server, x):
    server.metadata = metadata((), ())
    np.testing.assert_allclose(scores(aw.wrap(server.url), x.astype(np.float32)), local(x), atol=1e-6)
    assert {body["inputs"][0]["datatype"] for body in server.bodies} == {"FP32"}


def test_texts_are_sent_as_bytes(server):
    server.metadata = metadata([("text", "BYTES", [-1])], [("scores", "FP32", [-1])])
    server.answer = lambda body: (body["inputs"][0]["data"], {"outputs": [{"name": "scores", "datatype": "FP32", "shape": [2], "data": [1, 2]}]})
    model = aw.wrap(server.url)
    assert model.function(["so good", "so bad"]).tolist() == [1, 2]
    assert server.bodies[0]["inputs"] == [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["so good", "so bad"]}]


def table_server(server: Server) -> pd.DataFrame:
    server.metadata = metadata([("age", "INT64", [-1, 1]), ("income", "FP32", [-1, 1]), ("job", "BYTES", [-1])])

    def answer(body):
        age, income, job = (one["data"] for one in body["inputs"])
        found = [[a + i, len(j)] for a, i, j in zip(age, income, job, strict=True)]
        return found, {"outputs": [{"name": "scores", "datatype": "FP32", "shape": [len(age), 2], "data": np.ravel(found).tolist()}]}

    server.metadata["outputs"][0]["shape"] = [-1, 2]
    server.answer = answer
    return pd.DataFrame({"age": [30, 40, 50], "income": [1.5, 2.5, 3.5], "job": ["cook", "smith", "poet"]})


def test_several_inputs_are_the_columns_of_a_table(server):
    frame = table_server(server)
    model = aw.wrap(server.url)
    assert scores(model, frame).tolist() == [[31.5, 4], [42.5, 5], [53.5, 4]]
    assert server.bodies[0]["inputs"] == [
        {"name": "age", "shape": [3, 1], "datatype": "INT64", "data": [30, 40, 50]},
        {"name": "income", "shape": [3, 1], "datatype": "FP32", "data": [1.5, 2.5, 3.5]},
        {"name": "job", "shape": [3], "datatype": "BYTES", "data": ["cook", "smith", "poet"]},
    ]
    assert scores(model, frame.to_numpy()).tolist() == scores(model, frame).tolist()
    why = aw.occlusion(model, frame[:1], 0, background=frame[1:])
    assert why.components == (("age", "income", "job"),)
    np.testing.assert_allclose(why.values, [[-15, -1.5, 0]])
    with pytest.raises(InputError, match="columns are not the model's: missing \\['job'\\]"):
        scores(model, frame[["age", "income"]])
    with pytest.raises(InputError, match="takes the columns age, income, job, and x has the shape \\[3, 2\\]"):
        model.function(frame.to_numpy()[:, :2])


def test_a_table_of_numbers_is_one_tensor(server, x):
    np.testing.assert_array_equal(scores(aw.wrap(server.url), pd.DataFrame(x, columns=list("abcd"))), local(x))


def test_a_mixture_or_nan_in_one_tensor_is_refused(server):
    model = aw.wrap(server.url)
    with pytest.raises(InputError, match="'x' is one tensor, which cannot hold x's mixture"):
        scores(model, pd.DataFrame({"a": [1.5], "b": ["x"], "c": [1], "d": [2]}))
    with pytest.raises(InputError, match="NaN or infinite numbers in 'x'"):
        model.function(np.array([[1, 2, 3, np.nan]]))


def test_several_inputs_of_many_numbers_are_refused(server):
    server.metadata = metadata([("picture", "FP32", [-1, 3, 8, 8]), ("question", "INT64", [-1, 6])])
    with pytest.raises(UnsupportedError, match="'picture' is more than one number for each row; askwhy.remote"):
        aw.wrap(server.url)
    server.metadata = metadata([("x", "BF16", [-1, 4])])
    with pytest.raises(UnsupportedError, match="'x' is BF16"):
        aw.wrap(server.url)


def test_a_model_of_one_row_is_asked_row_by_row(server, x):
    server.metadata = metadata([("x", "FP64", [1, 4])])
    np.testing.assert_array_equal(scores(aw.wrap(server.url), x), local(x))
    assert {body["inputs"][0]["shape"][0] for body in server.bodies} == {1}


def two_outputs(body: dict) -> tuple[list, dict]:
    rows, reply = of_protocol(body)
    label = {"name": "predict", "datatype": "INT64", "shape": [len(rows)], "data": [0] * len(rows)}
    wanted = [one["name"] for one in body.get("outputs", [])]
    return rows, {"outputs": [one for one in (label, *reply["outputs"]) if not wanted or one["name"] in wanted]}


def test_an_output_is_chosen_by_name(server, x):
    server.metadata, server.answer = metadata(outputs=()), two_outputs
    np.testing.assert_array_equal(scores(aw.wrap(server.url, output="scores"), x), local(x))
    assert server.bodies[0]["outputs"] == [{"name": "scores"}]
    with pytest.raises(ModelError, match="the outputs 'predict', 'scores'; say which holds the scores, as output="):
        scores(aw.wrap(server.url), x)
    with pytest.raises(ModelError, match="has the outputs none; there is none called 'logits'"):
        scores(aw.wrap(server.url, output="logits"), x)
    with pytest.raises(ModelError, match="'predict' is INT64: labels, and a label is no score; choose an output of probabilities"):
        scores(aw.wrap(server.url, output="predict"), x)
    with pytest.raises(InputError, match="output=a tuple of 1: give the name"):
        aw.wrap(server.url, output=(1,))


def test_metadata_tell_of_labels_and_outputs_before_anything_is_asked(server):
    server.metadata = metadata(outputs=[("predict", "INT64", [-1]), ("predict_proba", "FP64", [-1, 3])])
    with pytest.raises(InputError, match="has the outputs 'predict', 'predict_proba'; say which"):
        aw.wrap(server.url)
    server.metadata = metadata(outputs=[("predict", "BYTES", [-1, 1])])
    with pytest.raises(ModelError, match="'predict' is BYTES: labels"):
        aw.wrap(server.url)
    aw.wrap(server.url, output="predict_proba")


def test_what_is_no_model_of_the_protocol_says_what_to_do(server):
    with pytest.raises(ModelError, match=r"status 404: no such model \(Asked for the metadata .*askwhy.remote\(url, request="):
        aw.wrap(server.url + "x")
    server.metadata = [1, 2]
    with pytest.raises(ModelError, match="does not describe a model of the Open Inference Protocol"):
        aw.wrap(server.url)


# ---- any other service ----------------------------------------------------------------------------------------------


def test_two_functions_speak_to_any_service(server, x):
    simple(server)
    model = aw.remote(server.url, request=lambda rows: {"rows": rows}, response=lambda reply: reply["scores"], batch=5)
    np.testing.assert_array_equal(scores(model, x), local(x))
    assert [len(body["rows"]) for body in server.bodies] == [5] * 8
    assert not any("Authorization" in sent for sent in server.sent)


@pytest.mark.parametrize("made", [str, bytes])
def test_a_request_may_be_text_or_bytes(server, x, made):
    simple(server)
    model = aw.remote(
        server.url,
        request=lambda rows: json.dumps({"rows": rows.tolist()}) if made is str else json.dumps({"rows": rows.tolist()}).encode(),
        response=lambda reply: reply["scores"],
        headers={"Content-Type": "application/x-own"},
    )
    np.testing.assert_array_equal(scores(model, x[:2]), local(x[:2]))
    assert server.sent[-1]["Content-Type"] == "application/x-own"


@pytest.mark.parametrize(
    ("response", "says"),
    [
        (lambda reply: reply["score"], "response= failed on the reply, a dict with the keys \\['scores'\\]: KeyError: 'score'"),
        (lambda reply: ["cat"] * 32, "no array of numbers .*a class name is no score"),
        (lambda reply: reply["scores"][:3], "answered 32 inputs with scores of shape \\[3, 3\\]"),
        (lambda reply: 0.5, "scores of shape \\[\\]"),
    ],
)
def test_a_reply_that_is_no_score_is_named(server, x, response, says):
    simple(server)
    with pytest.raises(ModelError, match=says):
        scores(aw.remote(server.url, request=no_wait, response=response), x[:32])


def test_what_cannot_be_sent_is_refused(server, x):
    for body in ({"rows": np.nan}, {"rows": object()}):
        with pytest.raises(InputError, match="no JSON"):
            scores(aw.remote(server.url, request=lambda rows, body=body: body, response=lambda reply: reply), x)
    with pytest.raises(ModelError, match="the model failed on an input .*ZeroDivisionError"):
        scores(aw.remote(server.url, request=lambda rows: 1 / 0, response=lambda reply: reply), x)
    assert server.number == 0


# ---- trouble --------------------------------------------------------------------------------------------------------

PASSING = {
    "slow": slow,
    "drip": drip,
    "cut": cut,
    "cut in the middle": cut_in_the_middle,
    "429": status(429, ("Retry-After", "0")),
    "429 with a date": lambda handler: handler.reply(429, {}, [("Retry-After", email.utils.formatdate(time.time(), usegmt=True))]),
    "429 without": status(429),
    "502": status(502, body=b"<html>Bad gateway</html>"),
    "503": status(503),
    "504": status(504),
}


@pytest.mark.parametrize("fault", PASSING)
def test_trouble_that_passes_changes_no_answer(server, x, fault):
    server.faults = {0: PASSING[fault], 3: PASSING[fault], 4: PASSING[fault]}
    model = aw.remote(server.url, batch=4, timeout=0.3, retries=3)
    np.testing.assert_array_equal(scores(model, x), local(x))
    assert len(server.answered) == 40
    assert server.asked_twice() == []
    assert server.number == 13


def test_every_second_request_fails_in_another_way(server, x):
    kinds = [PASSING[name] for name in ("429", "503", "cut", "cut in the middle", "502")]
    server.faults = lambda number: kinds[number // 2 % 5] if number % 2 else None
    model = aw.remote(server.url, batch=1, retries=20)
    far, near = (aw.occlusion(m, x[:2], background=x[5:9]) for m in (model, local))
    np.testing.assert_array_equal(far.values, near.values)
    assert far.model_calls == near.model_calls == sum(server.answered.values())


def test_a_server_that_is_killed_and_started_again(server, x):
    started = []

    def kill(number):
        if number == 4:
            threading.Thread(target=lambda: (server.kill(), time.sleep(0.2), started.append(Server(server.server_port, server)))).start()
            time.sleep(0.05)

    server.on_request, server.delay = kill, 0.01
    model = aw.remote(server.url, batch=1, concurrency=2, retries=8)
    try:
        np.testing.assert_array_equal(scores(model, x), local(x))
    finally:
        for one in started:
            one.kill()
    assert len(started) == 1


def test_the_last_trouble_is_named_when_tries_are_used_up(server, x):
    model = aw.remote(server.url, retries=2, timeout=0.3)
    server.faults = lambda number: status(503)
    with pytest.raises(ModelError, match="failed 3 times, at last with status 503, not now. See that the service is up"):
        scores(model, x[:1])
    server.faults = lambda number: slow
    with pytest.raises(ModelError, match="failed 3 times, at last with TimeoutError: timed out.*raise timeout= \\(0.3 s\\)"):
        scores(model, x[:1])
    assert server.number == 6
    server.kill()
    with pytest.raises(ModelError, match="failed 3 times, at last with .*refused"):
        scores(model, x[:1])


@pytest.mark.parametrize("code", [400, 401, 404, 422, 500])
def test_a_refusal_is_told_at_once_in_the_servers_own_words(server, x, code):
    server.faults = {0: status(code, body={"error": "x has 4 features,\x1b[31m 5 are expected"})}
    with pytest.raises(ModelError, match=f"refused with status {code}: x has 4 features, \\[31m 5 are expected"):
        scores(aw.remote(server.url), x[:1])
    assert server.number == 1


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (b"<html>hello</html>", "is no JSON: '<html>hello</html>'"),
        (b"\xff\xfe", "is no JSON"),
        ({"scores": [1]}, "none of the Open Inference Protocol \\(KeyError: 'outputs'\\)"),
        ({"outputs": [{"name": "scores", "datatype": "FP64", "shape": [3, 3], "data": [0.5] * 9}]}, "shape \\[3, 3\\] and 9 values for 4 inputs"),
        ({"outputs": [{"name": "scores", "datatype": "FP64", "shape": [4, 3], "data": [0.5] * 9}]}, "shape \\[4, 3\\] and 9 values for 4 inputs"),
        ({"outputs": [{"name": "scores", "datatype": "FP64", "shape": [4, 2], "data": [0.5] * 8}]}, "shape \\[4, 2\\], and the model's metadata say \\[-1, 3\\]"),
        ({"outputs": [{"name": "scores", "datatype": "FP64", "shape": [4, 3], "data": [0.5] * 11 + [float("nan")]}]}, "answered nan to an input"),
        ({"outputs": [{"name": "scores", "datatype": "FP64", "shape": [4, 3], "data": [None] + [0.5] * 11}]}, "answered nan to an input"),
        ({"outputs": [{"name": "scores", "datatype": "FP64", "shape": [4, 3], "data": [float("inf")] + [0.5] * 11}]}, "answered inf to an input"),
        ({"outputs": [{"name": "scores", "datatype": "FP64", "shape": [4, 3], "data": ["a"] * 12}]}, "no array of numbers"),
    ],
)  # fmt: skip
def test_a_broken_reply_is_an_error_and_leaves_nothing_wrong_in_the_cache(server, x, tmp_path, reply, says):
    server.faults = {2: status(200, body=reply)}
    model = aw.remote(server.url, batch=4, concurrency=1, cache=tmp_path)
    with pytest.raises(ModelError, match=says):
        scores(model, x)
    assert len(server.answered) == 8
    np.testing.assert_array_equal(scores(aw.remote(server.url, batch=4, cache=tmp_path)
                                         if b"nan" not in says.encode() and "inf" not in says else model, x[:8]), local(x[:8]))  # fmt: skip
    assert server.asked_twice() == []


def test_the_good_rows_of_a_reply_with_nan_are_kept(server, x, tmp_path):
    good = local(x[:3])
    good[1, 0] = np.nan
    server.faults = {0: status(200, body={"outputs": [{"name": "scores", "datatype": "FP64", "shape": [3, 3], "data": good.ravel().tolist()}]})}
    model = aw.remote(server.url, cache=tmp_path)
    with pytest.raises(ModelError, match="nan"):
        scores(model, x[:3])
    np.testing.assert_array_equal(scores(model, x[:3]), local(x[:3]))
    assert list(server.answered) == [repr(x[1].tolist())]


def test_a_model_that_changes_its_number_of_outputs_is_refused(server, x, tmp_path):
    server.metadata = metadata(outputs=())
    model = aw.remote(server.url, cache=tmp_path)
    scores(model, x[:2])
    server.answer = lambda body: ([], {"outputs": [{"name": "scores", "datatype": "FP64", "shape": [1, 2], "data": [1, 2]}]})
    with pytest.raises(ModelError, match="one input with \\[3\\] scores and another with \\[2\\]; has the model changed"):
        scores(model, x[2:3])


def test_redirects_are_not_followed(server, x):
    server.faults = {0: status(302, ("Location", "http://elsewhere/"))}
    with pytest.raises(ModelError, match="has moved to http://elsewhere/; give that address, if you trust it"):
        scores(aw.remote(server.url), x[:1])


def test_what_will_not_pass_is_not_tried_again(monkeypatch):
    tries = []

    def lookup(*args, **kwargs):
        tries.append(args)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    with pytest.raises(ModelError, match="http://nowhere.invalid/v2/models/m cannot be reached: .*Check the address"):
        aw.wrap("http://nowhere.invalid/v2/models/m")
    assert len(tries) == 1
    assert not hopeless(ConnectionResetError())


def test_plain_http_behind_https_is_told_at_once(server):
    with pytest.raises(ModelError, match="cannot be reached: .*SSL"):
        aw.wrap(server.url.replace("http:", "https:"))
    assert server.opened == 1


# ---- at a pace ------------------------------------------------------------------------------------------------------


def test_retry_after_holds_for_every_request(server, x):
    server.faults = {0: status(429, ("Retry-After", "0.4"))}
    model = aw.remote(server.url, batch=1, concurrency=2)
    scores(model, x[:12])
    gaps = np.diff(sorted(server.arrivals))
    assert gaps.max() > 0.3
    assert (np.array(server.arrivals) - server.arrivals[0] < 0.35).sum() <= 3


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("3", 3, 3),
        ("1.5", 1.5, 1.5),
        ("nonsense", None, None),
        ("-1", None, None),
        ("nan", None, None),
        (None, None, None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 0, 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, least, most):
    found = seconds_of(value)
    assert found is None if least is None else least <= found <= most


def test_retry_after_counts_from_now():
    in_an_hour = email.utils.formatdate(time.time() + 3600, usegmt=True)
    assert 3000 <= seconds_of(in_an_hour) <= 3600


def test_a_service_that_wants_to_rest_for_an_hour_is_believed(server, x):
    server.faults = {0: status(503, ("Retry-After", "3600"))}
    with pytest.raises(ModelError, match="asks to wait 3,600 s"):
        scores(aw.remote(server.url), x[:1])
    assert server.number == 1


def test_waits_grow_and_are_drawn_by_chance_of_their_own(server, x, monkeypatch):
    drawn = []
    monkeypatch.setattr(transport.CHANCE, "uniform", lambda low, high: drawn.append((low, high)) or 0.5)
    waits = []
    monkeypatch.setattr(threading.Event, "wait", lambda self, timeout=None, old=threading.Event.wait: waits.append(timeout) or old(self, timeout))
    monkeypatch.setattr(transport, "LONGEST_WAIT", 0.1)
    server.faults = dict.fromkeys(range(5), cut)
    scores(aw.remote(server.url), x[:1])
    assert drawn == [(0.5, 1)] * 5
    assert [w for w in waits if w and w in (0.01, 0.02, 0.04, 0.05)] == [0.01, 0.02, 0.04, 0.05, 0.05]


def test_no_more_requests_at_once_than_allowed(server, x):
    server.delay = 0.02
    model = aw.remote(server.url, batch=1, concurrency=3)
    threads = [threading.Thread(target=scores, args=(model, x[k::2])) for k in range(2)]  # two explanations at a time
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.most == 3
    assert server.opened <= 4  # connections are used again; one was for the metadata


def test_no_more_requests_a_second_than_allowed(server, x):
    scores(aw.remote(server.url, batch=1, concurrency=8, rate=50), x[:20])
    assert max(server.arrivals) - min(server.arrivals) > 0.33


def test_a_connection_that_the_server_closed_costs_no_try(server, x):
    model = aw.remote(server.url, retries=0)
    for k in range(3):
        scores(model, x[k : k + 1])
        for connection in list(server.open):
            connection.shutdown(socket.SHUT_RDWR)
        time.sleep(0.02)
    assert server.number == 3


# ---- a cap on the calls ---------------------------------------------------------------------------------------------


def test_the_calls_are_announced_and_refused_before_they_start(server, x, tmp_path):
    model = aw.remote(server.url, max_calls=30, cache=tmp_path)
    with pytest.raises(InputError, match=r"this will make 2,048 calls, and max_calls=30; ask for less \(fewer samples\), or raise it"):
        model.expect(2048)
    model.expect(30)
    assert server.number == 0
    scores(model, x[:20])
    with pytest.raises(InputError, match="this will make 11 calls, and max_calls=30, of which 20 are made"):
        model.expect(11)
    with pytest.raises(InputError, match="this will make 20 calls"):  # also where nobody announces it
        scores(model, x[20:])
    assert len(server.answered) == 20
    scores(model, x[:20])  # what is known is free
    model.expect(20, model.prepare(x[:20]), (x[k : k + 5] for k in range(0, 20, 5)))
    with pytest.raises(InputError, match="this will make 11 calls"):
        model.expect(31, model.prepare(x[:20]), [x[:20]])
    model.expect(10)


def test_an_explanation_that_would_cost_too_much_is_refused_before_it_starts(server, x):
    model = aw.remote(server.url, max_calls=50)
    with pytest.raises(InputError, match="this will make 80 calls, and max_calls=50, of which 1 are made"):
        aw.occlusion(model, x[:1], background=x[5:25])
    assert sum(server.answered.values()) == 1


def test_calls_that_were_not_made_do_not_count(server, x):
    server.faults = {1: status(400)}
    model = aw.remote(server.url, batch=4, concurrency=1)
    with pytest.raises(ModelError):
        scores(model, x)
    assert model.function.calls == 8


# ---- the cache ------------------------------------------------------------------------------------------------------


def test_equal_inputs_are_asked_once(server, x, tmp_path):
    model = aw.remote(server.url)
    np.testing.assert_array_equal(scores(model, x[[0, 1, 0, 1, 2]]), local(x[[0, 1, 0, 1, 2]]))
    assert sum(server.answered.values()) == 3


def test_what_is_kept_is_asked_no_more(server, x, tmp_path):
    for _ in range(2):
        model = aw.remote(server.url, cache=tmp_path / "new" / "folder")
        np.testing.assert_array_equal(scores(model, x), local(x))
    scores(model, pd.DataFrame(x)), scores(model, pd.DataFrame(x))
    assert max(server.answered.values()) == 2
    assert model.function.calls == 40


@pytest.mark.parametrize("change", ["version", "told", "output", "dtype", "shape", "address"])
def test_answers_of_another_model_or_to_another_input_are_others(server, x, tmp_path, change):
    server.metadata = metadata(outputs=())
    x = x[:1].astype(np.float32)
    scores(aw.remote(server.url, cache=tmp_path), x)
    options = {"version": {"version": "2"}, "output": {"output": "scores"}}.get(change, {})
    if change == "told":
        server.metadata = metadata(outputs=()) | {"versions": ["2"]}
    url = server.url if change != "address" else server.url.replace("127.0.0.1", "localhost")
    given = {"dtype": x.astype(np.float64), "shape": x.reshape(1, 1, 4)}.get(change, x)
    scores(aw.remote(url, cache=tmp_path, **options), given)
    assert sum(server.answered.values()) == 2


def test_texts_and_mixed_tables_are_kept_too(server, tmp_path):
    frame = table_server(server)
    for _ in range(2):
        scores(aw.remote(server.url, cache=tmp_path), frame)
    frame["when"] = pd.Timestamp("2024-01-01")
    keys = [aw.models.answers.keys_of(f, "m")[0] for f in (frame, frame.assign(age=31), frame.assign(age=30.0), frame.assign(when=pd.Timestamp(0)))]
    assert len(set(keys)) == 4
    assert len(server.bodies) == 1


def test_two_writers_at_once_lose_nothing(server, x, tmp_path):
    models = [aw.remote(server.url, batch=1, cache=tmp_path) for _ in range(3)]
    threads = [threading.Thread(target=scores, args=(model, x)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    server.kill()
    np.testing.assert_array_equal(scores(models[0], x), local(x))


@pytest.mark.parametrize("can_cut", [True, False])
def test_ctrl_c_stops_quickly_and_what_has_come_is_kept(server, x, tmp_path, monkeypatch, can_cut):
    model = aw.remote(server.url, batch=1, concurrency=2, cache=tmp_path)
    waiting = threading.Event()

    def hold(number):
        if number == 10:
            signal.raise_signal(signal.SIGINT)
        if number >= 10:
            waiting.wait(5)

    server.on_request = hold
    if not can_cut:
        monkeypatch.setattr(Service, "cut", lambda self: None)
    with pytest.raises(KeyboardInterrupt):
        scores(model, x)
    assert server.active == 2  # they are held still, and nobody waited for them
    until = time.monotonic() + 3
    while can_cut and any(t.name.startswith("ThreadPoolExecutor") for t in threading.enumerate()):
        assert time.monotonic() < until, "the requests under way go on"
        time.sleep(0.01)
    kept = len(server.answered)
    waiting.set()
    server.on_request = None
    assert server.number <= 13
    again = aw.remote(server.url, cache=tmp_path)
    np.testing.assert_array_equal(scores(again, x), local(x))
    assert 28 - kept <= again.function.calls <= 31
    assert kept >= 9


def test_a_process_killed_in_the_middle_goes_on_where_it_stopped(server, x, tmp_path):
    np.save(tmp_path / "x.npy", x)
    script = f"""
        import numpy as np, askwhy as aw
        x = np.load({str(tmp_path / "x.npy")!r})
        model = aw.remote({server.url!r}, batch=1, concurrency=2, cache={str(tmp_path / "kept")!r})
        aw.occlusion(model, x[:2], background=x[5:25], batch_size=8)
    """
    running = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)])

    def kill(number):
        if number == 60:
            running.kill()

    server.on_request = kill
    assert running.wait(30) == -signal.SIGKILL
    server.on_request = None
    time.sleep(0.1)
    before = sum(server.answered.values())
    model = aw.remote(server.url, cache=tmp_path / "kept")
    far, near = (aw.occlusion(m, x[:2], background=x[5:25]) for m in (model, local))
    np.testing.assert_array_equal(far.values, near.values)
    assert 55 <= before <= 63
    assert len(server.asked_twice()) <= 2  # those that were under way when it died
    assert model.function.calls <= near.model_calls - before + 2


def test_a_cache_that_cannot_be_used_is_named(server, x, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileError, match="cache=.*file' cannot be used"):
        scores(aw.remote(server.url, cache=tmp_path / "file"), x)
    (tmp_path / "answers.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(FileError, match="cannot be used .*delete a damaged one"):
        scores(aw.remote(server.url, cache=tmp_path), x)


# ---- secrets --------------------------------------------------------------------------------------------------------


def test_a_secret_goes_to_the_service_and_nowhere_else(server, x, tmp_path, caplog, capfd):
    simple(server)
    headers = {"Authorization": "Bearer $MY_TOKEN", "X-Key": "$MY_TOKEN"}
    model = aw.remote(
        server.url, request=no_wait, response=lambda reply: reply["scores"], headers=headers, cache=tmp_path / "kept", version="1", batch=1
    )
    why = aw.occlusion(model, x[:1], background=x[5:7])
    assert {(sent["Authorization"], sent["X-Key"]) for sent in server.sent} == {(f"Bearer {TOKEN}", TOKEN)}
    why.save(tmp_path / "why.npz")
    again = aw.remote(server.url, request=no_wait, response=np.asarray, headers=headers, batch=1)
    held = [repr(model).encode(), repr(model.function.service).encode(), pickle.dumps(again), repr(vars(model.function.service)).encode()]
    held += [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    held += [caplog.text.encode(), *map(str.encode, capfd.readouterr()), why.summary().encode(), repr(dict(why.params)).encode()]
    assert len(held) > 9
    for one in held:
        assert TOKEN.encode() not in one
        assert b"s3cret" not in one


@pytest.mark.parametrize("echo", [TOKEN, "s3cret%2Ftok%20en%2B", f"Bearer {TOKEN}", "x" * 295 + TOKEN])
def test_a_secret_that_the_service_repeats_is_in_no_error(server, x, echo):
    bad = [status(400, body={"error": echo}), status(400, body=echo.encode()), status(200, body=echo.encode()), status(503, body={"message": echo})]
    bad += [status(302, ("Location", echo)), status(200, body={"outputs": [{"name": echo}]}), status(200, body={"outputs": [{"name": "o", "data": [], "shape": [9], "datatype": echo}]})]  # fmt: skip
    bad += [status(200, body={"outputs": [{"name": echo, "data": [1], "shape": [1], "datatype": "BYTES"}]})]
    server.metadata = metadata(outputs=())
    model = aw.remote(server.url, headers={"Authorization": "Bearer $MY_TOKEN"}, retries=0)
    for k, fault in enumerate(bad):
        server.faults = {k: fault}
        with pytest.raises(ModelError) as caught:
            scores(model, x[:1])
        seen: BaseException | None = caught.value
        while seen is not None:
            assert "s3cret" not in str(seen), k
            seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)


def test_a_pickled_model_asks_on(server, x):
    model = aw.remote(server.url, headers={"X-Key": "$MY_TOKEN"}, labels=["a", "b", "c"])
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(scores(again, x), local(x))


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": f"Bearer {TOKEN}"}, {"X-Api-Key": TOKEN}, {"Cookie": f"a={TOKEN}"}, {"X-Key": f"{TOKEN}$MY_TOKEN"}, {"X-Tenant": "me"}],
)
def test_a_secret_in_the_code_is_refused_and_not_repeated(headers):
    with pytest.raises(InputError, match="holds its value itself .*put it in an environment variable") as caught:
        aw.remote("http://127.0.0.1:9/v2/models/m", headers=headers)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("value", [None, "", "  ", "two\nlines", "ä"])
def test_a_variable_that_is_not_set_is_refused(monkeypatch, value):
    monkeypatch.setenv("MY_OTHER", value) if value is not None else monkeypatch.delenv("MY_OTHER", raising=False)
    with pytest.raises(InputError, match="environment variable that headers=.*'X-Key'.* names is not set, empty, or not plain text"):
        aw.remote("http://127.0.0.1:9/v2/models/m", headers={"X-Key": "$MY_OTHER"})


def test_the_end_of_a_line_in_a_variable_does_no_harm(server, x, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", TOKEN + "\n")
    scores(aw.remote(server.url, headers={"X-Key": "$MY_TOKEN"}), x[:1])
    assert server.sent[-1]["X-Key"] == TOKEN


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://me:pass-word@host/v2/models/m", "user name or password; leave it out, put what"),
        ("https://pass-word@host/v2/models/m", "user name or password"),
        ("https://host/m?api_key=pass-word", "holds a credential, api_key=; send it as a header"),
        ("https://host/m?sig=pass-word", "holds a credential, sig="),
        ("ftp://host/m", "'ftp://host/m' is none of a service"),
        ("http://", "none of a service"),
        ("http://host:port/m", "none of a service"),
        ("http://[::1/m", "none of a service"),
        (7, "the address is a int; give a text"),
    ],
)  # fmt: skip
def test_an_address_is_checked_and_no_password_repeated(url, says):
    with pytest.raises(InputError, match=says) as caught:
        aw.remote(url)
    assert "pass-word" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"timeout": 0}, "timeout=0: give a number above 0"),
        ({"timeout": None}, "timeout=None"),
        ({"rate": -1}, "rate=-1"),
        ({"rate": "fast"}, "rate='fast'"),
        ({"retries": -1}, "retries=-1: give a whole number from 0 on"),
        ({"concurrency": 0}, "concurrency=0"),
        ({"batch": True}, "batch=True"),
        ({"max_calls": 0.5}, "max_calls=0.5"),
        ({"request": len}, "response= is missing"),
        ({"response": len}, "request= is missing"),
        ({"request": len, "response": len, "output": "y"}, "output='y' is for the Open Inference Protocol"),
        ({"request": len, "response": len, "cache": "c"}, "cache= needs version= here"),
    ],
)
def test_options_are_checked(options, says):
    with pytest.raises(InputError, match=says):
        aw.remote("http://127.0.0.1:9/m", **options)


def test_a_path_is_quoted_and_a_query_is_sent_but_not_shown():
    service = Service("http://127.0.0.1:9/a b/ü?v=1#part")
    assert service.address == "http://127.0.0.1:9/a b/ü"
    assert "v=1" not in repr(service)


# ---- a real server --------------------------------------------------------------------------------------------------

TRAIN = """
    import sys, joblib, json, pathlib, numpy, pandas
    from sklearn.compose import make_column_transformer
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

    folder = pathlib.Path(sys.argv[1])
    digits = load_digits()
    flat = FunctionTransformer(numpy.reshape, kw_args={"shape": (-1, 64)})
    seen = make_pipeline(flat, RandomForestClassifier(20, random_state=0)).fit(digits.images[:, None] / 16, digits.target)
    table = pandas.DataFrame({"age": [20, 30, 40, 50], "job": ["cook", "poet", "cook", "smith"]})
    forest = RandomForestClassifier(20, random_state=0)
    people = make_pipeline(make_column_transformer((OneHotEncoder(), ["job"]), remainder="passthrough"), forest).fit(table, [0, 1, 0, 1])
    texts = make_pipeline(CountVectorizer(), LogisticRegression()).fit(["so good", "good fun", "so bad", "bad film"], [1, 1, 0, 0])
    column = {"age": ("INT64", "np"), "job": ("BYTES", "str")}
    inputs = [{"name": n, "datatype": d, "shape": [-1, 1], "parameters": {"content_type": c}} for n, (d, c) in column.items()]
    text = [{"name": "text", "datatype": "BYTES", "shape": [-1], "parameters": {"content_type": "str"}}]
    for name, model, told in (("digits", seen, {}), ("people", people, {"inputs": inputs, "parameters": {"content_type": "pd"}}), ("texts", texts, {"inputs": text})):
        (folder / name).mkdir()
        joblib.dump(model, folder / name / "model.joblib")
        own = {"uri": "./model.joblib", "version": "v1"} | told.pop("parameters", {})
        settings = {"name": name, "implementation": "mlserver_sklearn.SKLearnModel", "parameters": own, **told}
        (folder / name / "model-settings.json").write_text(json.dumps(settings))
"""


class MLServer:
    """The real thing, in an environment of its own, on free ports; it can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        from askwhy.fetch import cache_folder

        self.folder, self.bin = folder, cache_folder() / "mlserver-1.7.1" / "bin"
        if not (self.bin / "mlserver").exists():
            subprocess.run([sys.executable, "-m", "venv", str(self.bin.parent)], check=True)
            wanted = ["mlserver==1.7.1", "mlserver-sklearn==1.7.1"]
            subprocess.run([str(self.bin / "python"), "-m", "pip", "install", "--quiet", *wanted], check=True)
        subprocess.run([str(self.bin / "python"), "-c", textwrap.dedent(TRAIN), str(folder)], check=True)
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        self.port, *rest = (one.getsockname()[1] for one in sockets)
        for one in sockets:
            one.close()
        settings = {"host": "127.0.0.1", "http_port": self.port, "grpc_port": rest[0], "metrics_port": rest[1], "parallel_workers": 0}
        (folder / "settings.json").write_text(json.dumps(settings))
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen([str(self.bin / "mlserver"), "start", str(self.folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill_and_start(self) -> None:
        self.process.kill()
        self.process.wait()
        self.start()


class Proxy(Handler):
    """Hands requests on to the real server, unless `faults` has something else to do with that number."""

    def do_GET(self) -> None:
        self.hand_on(None)

    def do_POST(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with server.lock:
            number, server.number = server.number, server.number + 1
        if server.on_request:
            server.on_request(number)
        fault = server.faults.get(number)
        if fault in (wrong_shape, with_nan):
            return self.hand_on(body, fault)
        if fault:
            return fault(self)
        if self.hand_on(body) == 200:
            one = json.loads(body)["inputs"][0]
            with server.lock:
                server.answered.update(map(repr, np.array(one["data"]).reshape(one["shape"]).tolist()))

    def hand_on(self, body: bytes | None, change=bytes) -> int:
        asked = http.client.HTTPConnection("127.0.0.1", self.server.real.port, timeout=20)
        try:
            asked.request("POST" if body else "GET", self.path, body, {"Content-Type": "application/json"})
            reply = asked.getresponse()
            self.reply(reply.status, change(reply.read()))
            return reply.status
        except OSError:
            self.reply(502, {"error": "nobody there"})
            return 502
        finally:
            asked.close()


def wrong_shape(content: bytes) -> bytes:
    reply = json.loads(content)
    reply["outputs"][0]["shape"][0] += 1
    return json.dumps(reply).encode()


def with_nan(content: bytes) -> bytes:
    reply = json.loads(content)
    reply["outputs"][0]["data"][0] = float("nan")
    return json.dumps(reply).encode()


@pytest.mark.slow
def test_explanations_of_a_real_server_through_all_trouble(tmp_path_factory, tmp_path, monkeypatch):
    real = MLServer(tmp_path_factory.mktemp("models"))
    proxy = Server()
    proxy.RequestHandlerClass, proxy.real = Proxy, real
    try:
        check_real(real, proxy, tmp_path, monkeypatch)
    finally:
        proxy.kill()
        real.process.kill()
        real.process.wait()


def check_real(real: MLServer, proxy: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "LONGEST_WAIT", 1.0)
    plain, troubled = (f"http://127.0.0.1:{port}/v2/models/" for port in (real.port, proxy.server_port))
    direct = aw.remote(plain + "digits", output="predict_proba", retries=60)
    photo = load_digits().images[:2, None] / 16
    near = ask_both(direct, photo)

    with pytest.raises(ModelError, match="'predict' is INT64: labels, and a label is no score"):
        aw.occlusion(aw.wrap(plain + "digits"), photo)
    with pytest.raises(ModelError, match="refused with status 400: .*only supports 'predict'"):
        aw.occlusion(aw.wrap(plain + "digits", output="logits"), photo)

    proxy.faults = {
        1: slow_for(1.5),
        3: status(429, ("Retry-After", "1")),
        5: status(503),
        7: cut,
        9: cut_in_the_middle,
        12: wrong_shape,
        15: with_nan,
    }
    proxy.on_request = lambda number: real.kill_and_start() if number == 18 else None
    model = aw.remote(troubled + "digits", output="predict_proba", retries=60, timeout=1, batch=4, cache=tmp_path)
    far, errors = None, []
    while far is None:
        try:
            far = ask_both(model, photo)
        except ModelError as error:
            errors.append(str(error))
    assert len(errors) == 2
    assert "values for 4 inputs; the first axis has to count the inputs" in errors[0]
    assert "answered nan to an input" in errors[1]
    for one, other in zip(far, near, strict=True):
        np.testing.assert_array_equal(one.values, other.values)
        np.testing.assert_array_equal(one.prediction, other.prediction)
    assert proxy.asked_twice() == []
    assert proxy.number > 18

    people = aw.remote(plain + "people", output="predict_proba", retries=60)
    table = pd.DataFrame({"age": [20, 30, 40], "job": ["cook", "poet", "smith"]})
    why = aw.occlusion(people, table[:1], 1, background=table[1:])
    assert why.components == (("age", "job"),)
    assert why.values[0, 1] < -0.1
    liked = aw.remote(plain + "texts", output="predict_proba", retries=60).function(["so good", "so bad"])
    assert liked[0, 1] > 0.5 > liked[1, 1]


def slow_for(seconds: float):
    return lambda handler: (time.sleep(seconds), cut(handler))


def ask_both(model: aw.models.Model, photo: np.ndarray) -> list[aw.Explanation]:
    blocks = np.arange(64).reshape(8, 8) // 16 * 4 + np.arange(8) // 2
    return [aw.occlusion(model, photo, size=2, stride=1), aw.lime(model, photo, samples=80, components=blocks, seed=1)]
