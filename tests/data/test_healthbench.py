"""The published files: download with breaks, where files are found, raw rows, known wrong signs."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rubric_rl.data import healthbench
from rubric_rl.data.converters import plain
from rubric_rl.data.download import Published, digest, download
from rubric_rl.data.healthbench import (
    consensus,
    fix_signs,
    load_converter,
    locate,
    raw_rows,
    to_row,
)
from rubric_rl.errors import DataError, UserError

BODY = bytes(range(256)) * 4000
FILE = Published("rows.jsonl", len(BODY), hashlib.sha256(BODY).hexdigest())


class Flaky(BaseHTTPRequestHandler):
    """Serves BODY; `server.cut` bytes an answer, then the connection drops; `server.ranges`: whether Range is known."""

    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.asked.append(asked)
        if server.status != 200:
            self.send_error(server.status)
            return
        start = int(asked.split("=")[1].rstrip("-")) if asked and server.ranges else 0
        body = server.body[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}"
            )
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cut])
        self.close_connection = True

    def log_message(self, *args):
        """Silent."""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Flaky)
    server.body, server.cut, server.ranges, server.status, server.asked = BODY, None, True, 200, []
    server.url = f"http://127.0.0.1:{server.server_port}/files"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_download_is_checked_and_kept(server, tmp_path):
    path = download(server.url, FILE, tmp_path / "new")
    assert path.read_bytes() == BODY and [p.name for p in path.parent.iterdir()] == ["rows.jsonl"]
    assert download(server.url, FILE, tmp_path / "new") == path and len(server.asked) == 1


def test_dropped_connection_is_taken_up_where_it_ended(server, tmp_path):
    server.cut = 300_000
    assert digest(download(server.url, FILE, tmp_path)) == FILE.sha256
    assert server.asked == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]


def test_next_run_goes_on_with_a_partial_file(server, tmp_path):
    (tmp_path / "rows.jsonl.part").write_bytes(BODY[:1000])
    assert download(server.url, FILE, tmp_path).read_bytes() == BODY
    assert server.asked == ["bytes=1000-"]


def test_server_without_ranges_begins_anew(server, tmp_path):
    server.ranges = False
    (tmp_path / "rows.jsonl.part").write_bytes(b"x" * 1000)
    assert download(server.url, FILE, tmp_path).read_bytes() == BODY


def test_other_bytes_are_refused_and_removed(server, tmp_path):
    server.body = b"y" * len(BODY)
    with pytest.raises(DataError, match="sha256"):
        download(server.url, FILE, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_kept_file_with_other_bytes_is_fetched_again(server, tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b"damaged")
    assert download(server.url, FILE, tmp_path).read_bytes() == BODY


def test_refusal_names_url_and_next_step(server, tmp_path):
    server.status = 404
    with pytest.raises(DataError, match="rows.jsonl: HTTP 404; pass a local copy with --source"):
        download(server.url, FILE, tmp_path)


def test_a_server_that_sends_nothing_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr("rubric_rl.data.download.time.sleep", lambda seconds: None)
    server.cut = 0
    with pytest.raises(DataError, match="8 times"):
        download(server.url, FILE, tmp_path)


def raw(prompt_id="p", points=(5, -3), **more) -> dict:
    rubrics = [
        {"criterion": f"criterion {i}", "points": p, "tags": []} for i, p in enumerate(points)
    ]
    return {
        "prompt_id": prompt_id,
        "prompt": [{"role": "user", "content": "ask"}],
        "rubrics": rubrics,
    } | more


def test_row_keeps_theme_tags_and_canary_and_drops_reference_answers():
    tags = ["theme:hedging", "physician_agreed_category:x"]
    row = to_row(
        raw(example_tags=tags, canary="c", ideal_completions_data={"ideal": "secret"}), "f:1"
    )
    assert (row.theme, row.example_tags, row.extra) == ("hedging", tuple(tags), {"canary": "c"})
    assert "secret" not in str(row.to_json())


@pytest.mark.parametrize("item", [[], "text", None, {"prompt": []}, {"prompt_id": 5}])
def test_other_things_are_no_rows(item):
    with pytest.raises(DataError, match="f:3: no prompt_id"):
        to_row(item, "f:3")


def test_half_a_surrogate_pair_is_refused():
    with pytest.raises(DataError, match="surrogate"):
        to_row(raw(prompt=[{"role": "user", "content": "\ud800"}]), "f:1")


def test_folder_and_file_find_the_published_hard_file(tmp_path):
    for file in (healthbench.FULL, healthbench.HARD):
        (tmp_path / file.name).write_text("{}\n")
    full, hard = tmp_path / healthbench.FULL.name, tmp_path / healthbench.HARD.name
    for source in (tmp_path, full):
        found = locate(str(source), None, tmp_path)
        assert (found.full, found.hard) == (full, hard)
    assert locate(str(full), tmp_path / "mine", tmp_path).hard == tmp_path / "mine"


def test_folder_without_the_files_says_which(tmp_path):
    with pytest.raises(DataError, match="holds no 2025-05-07"):
        locate(str(tmp_path), None, tmp_path)


def test_hub_names_are_read_with_datasets(tmp_path):
    pytest.importorskip("datasets")
    (tmp_path / "train.jsonl").write_text('{"prompt": "ask", "rubrics": []}\n')
    assert list(raw_rows(f"hf:{tmp_path}", [])) == [
        (f"hf:{tmp_path}:1", {"prompt": "ask", "rubrics": []})
    ]


def test_signs_are_turned_only_where_known():
    prompt_id, points, words = healthbench.WRONG_SIGNS[0]
    item = raw(prompt_id, points=(points, points, 3))
    item["rubrics"][0]["criterion"] = f"Advises {words}."
    assert [c.points for c in fix_signs(to_row(item, "f:1")).rubric] == [-points, points, 3]
    other = to_row(item | {"prompt_id": "other"}, "f:1")
    assert fix_signs(other) == other


def test_consensus_keeps_agreed_criteria():
    item = raw(points=(1, 2, 3))
    item["rubrics"][1]["tags"] = ["level:cluster"]
    item["rubrics"][2]["tags"] = ["level:example"]
    assert [c.points for c in consensus(to_row(item, "f:1")).rubric] == [2]


def test_plain_converter_makes_a_row_of_any_prompt_with_rubrics():
    item = {
        "prompt": "ask",
        "rubrics": [
            {"description": "says so", "weight": 2},
            {"criterion": "lies", "points": -1, "tags": ["axis:a"]},
        ],
    }
    row = to_row(plain(item), "f:1")
    assert [(c.text, c.points, c.tags) for c in row.rubric] == [
        ("says so", 2, ()),
        ("lies", -1, ("axis:a",)),
    ]
    assert (
        row.messages == ({"role": "user", "content": "ask"},)
        and row.prompt_id == to_row(plain(item), "f:9").prompt_id
    )


@pytest.mark.parametrize(
    "path", ["nothing", "rubric_rl.data.converters.absent", "no_such_module.f"]
)
def test_unknown_converter_is_a_clear_error(path):
    with pytest.raises(UserError, match="--converter"):
        load_converter(path)
