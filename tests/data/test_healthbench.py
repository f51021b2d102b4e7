"""The published files: download with breaks, where files are found, raw rows, known wrong signs."""

import hashlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rubric_rl.common.errors import DataError, UserError
from rubric_rl.data import healthbench
from rubric_rl.data.converters import load_converter, plain
from rubric_rl.data.download import Published, digest, download
from rubric_rl.data.healthbench import consensus, fix_signs, to_row
from rubric_rl.data.raw_rows import raw_rows
from rubric_rl.data.source import locate

BODY = bytes(range(256)) * 4000
FILE = Published("rows.jsonl", len(BODY), hashlib.sha256(BODY).hexdigest())


class Flaky(BaseHTTPRequestHandler):
    """Serves the body of its server, with the faults that a test sets there."""

    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        server.encodings.append(self.headers.get("Accept-Encoding"))
        if server.status != 200:
            self.send_error(server.status)
            return
        start = 0
        if asked and server.ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        body = server.body[start:]
        self.send_response(206 if start else 200)
        if start:
            size = len(server.body)
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        if server.kind:
            self.send_header("Content-Type", server.kind)
        else:
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
    server.body = BODY
    server.cut = None  # bytes an answer, then the connection drops
    server.ranges = True  # whether Range is known
    server.status = 200
    server.kind = ""  # of the content; its length is left out then
    server.asked = []  # the Range of each request
    server.encodings = []
    server.url = f"http://127.0.0.1:{server.server_port}/files"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_download_is_checked_and_kept(server, tmp_path):
    folder = tmp_path / "new"
    path = download(server.url, FILE, folder)
    assert path.read_bytes() == BODY
    assert [each.name for each in folder.glob("rows*")] == ["rows.jsonl"]
    assert download(server.url, FILE, folder) == path
    assert len(server.asked) == 1


def test_the_bytes_are_asked_for_as_published(server, tmp_path):
    """A compressed answer could not be resumed by its place in the file."""
    download(server.url, FILE, tmp_path)
    assert server.encodings == ["identity"]


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
    assert not list(tmp_path.glob("rows*"))


@pytest.mark.parametrize("kind", ["", "text/html; charset=utf-8"])
def test_a_page_of_a_proxy_is_refused_at_once_and_spoils_nothing(server, tmp_path, kind):
    part = tmp_path / "rows.jsonl.part"
    part.write_bytes(BODY[:1000])
    server.body, server.ranges, server.kind = b"<html>Sign in.</html>", False, kind
    complaint = rf"rows.jsonl: .* in place of the published {len(BODY)}; is it a proxy's page\?"
    with pytest.raises(DataError, match=complaint):
        download(server.url, FILE, tmp_path)
    assert len(server.asked) == 1
    assert part.read_bytes() == BODY[:1000]


def test_of_several_at_once_one_downloads(server, tmp_path):
    (tmp_path / "rows.jsonl.part").write_bytes(BODY[:1000])
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: download(server.url, FILE, tmp_path), range(4)))
    assert [path.read_bytes() for path in paths] == [BODY] * 4
    assert [each.name for each in tmp_path.glob("rows*")] == ["rows.jsonl"]
    assert server.asked == ["bytes=1000-"]


def test_who_gives_up_leaves_its_part_to_the_next(server, tmp_path, monkeypatch):
    monkeypatch.setattr("rubric_rl.data.download.ATTEMPTS", 1)
    (tmp_path / "rows.jsonl.part").write_bytes(BODY[:1000])
    server.cut = 0
    with pytest.raises(DataError, match="run it again to resume"):
        download(server.url, FILE, tmp_path)
    assert (tmp_path / "rows.jsonl.part").read_bytes() == BODY[:1000]


def test_a_kept_file_with_other_bytes_is_fetched_again(server, tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b"damaged")
    assert download(server.url, FILE, tmp_path).read_bytes() == BODY


def test_refusal_names_url_and_next_step(server, tmp_path):
    server.status = 404
    with pytest.raises(DataError, match=r"rows.jsonl: HTTP 404; pass a local copy with --source"):
        download(server.url, FILE, tmp_path)


def test_a_server_that_sends_nothing_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr("rubric_rl.data.download.time.sleep", lambda seconds: None)
    server.cut = 0
    with pytest.raises(DataError, match="8 times"):
        download(server.url, FILE, tmp_path)
    assert len(server.asked) == 8


def test_where_nobody_listens_the_reason_is_one_short_line(server, tmp_path, monkeypatch):
    monkeypatch.setattr("rubric_rl.data.download.time.sleep", lambda seconds: None)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with pytest.raises(DataError) as failure:
        download(url, FILE, tmp_path)
    hint = "run it again to resume, or pass a local copy with --source"
    assert str(failure.value) == f"{url}/rows.jsonl: Connection refused, 8 times; {hint}"


def test_a_cache_that_cannot_be_written_is_the_users_to_mend(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=f"{tmp_path}/file.*; name a folder with --cache"):
        download(server.url, FILE, tmp_path / "file" / "cache")


def test_a_full_disk_is_no_broken_connection(server, tmp_path):
    (tmp_path / "rows.jsonl.part").symlink_to("/dev/full")
    complaint = "No space left on device; name a folder with --cache"
    with pytest.raises(DataError, match=complaint):
        download(server.url, FILE, tmp_path)
    assert len(server.asked) == 1


def raw(prompt_id="p", points=(5, -3), **more) -> dict:
    rubrics = []
    for number, each in enumerate(points):
        rubrics.append({"criterion": f"criterion {number}", "points": each, "tags": []})
    row = {
        "prompt_id": prompt_id,
        "prompt": [{"role": "user", "content": "ask"}],
        "rubrics": rubrics,
    }
    return row | more


def test_row_keeps_theme_tags_and_canary_and_drops_reference_answers():
    tags = ["theme:hedging", "physician_agreed_category:x"]
    item = raw(example_tags=tags, canary="c", ideal_completions_data={"ideal": "secret"})
    row = to_row(item, "f:1")
    assert row.theme == "hedging"
    assert row.example_tags == tuple(tags)
    assert row.extra == {"canary": "c"}
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
        assert found.full == full
        assert found.hard == hard
    mine = tmp_path / "mine"
    assert locate(str(full), mine, tmp_path).hard == mine


def test_a_folder_without_rows_says_so(tmp_path):
    with pytest.raises(DataError, match="holds no files of rows"):
        locate(str(tmp_path), None, tmp_path)


def test_hub_names_are_read_with_datasets(tmp_path):
    pytest.importorskip("datasets")
    (tmp_path / "train.jsonl").write_text('{"prompt": "ask", "rubrics": []}\n')
    name = f"hf:{tmp_path}"
    (found,) = raw_rows(name, [])
    assert found == (f"{name}:1", {"prompt": "ask", "rubrics": []})


def test_signs_are_turned_only_where_known():
    prompt_id, points, words = healthbench.WRONG_SIGNS[0]
    item = raw(prompt_id, points=(points, points, 3))
    item["rubrics"][0]["criterion"] = f"Advises {words}."
    fixed = fix_signs(to_row(item, "f:1"))
    assert [criterion.points for criterion in fixed.rubric] == [-points, points, 3]
    other = to_row(item | {"prompt_id": "other"}, "f:1")
    assert fix_signs(other) == other


def test_consensus_keeps_agreed_criteria():
    item = raw(points=(1, 2, 3))
    item["rubrics"][1]["tags"] = ["level:cluster"]
    item["rubrics"][2]["tags"] = ["level:example"]
    agreed = consensus(to_row(item, "f:1"))
    assert [criterion.points for criterion in agreed.rubric] == [2]


def test_plain_converter_makes_a_row_of_any_prompt_with_rubrics():
    item = {
        "prompt": "ask",
        "rubrics": [
            {"description": "says so", "weight": 2},
            {"criterion": "lies", "points": -1, "tags": ["axis:a"]},
        ],
    }
    row = to_row(plain(item), "f:1")
    first, second = row.rubric
    assert (first.text, first.points, first.tags) == ("says so", 2, ())
    assert (second.text, second.points, second.tags) == ("lies", -1, ("axis:a",))
    assert row.messages == ({"role": "user", "content": "ask"},)
    assert row.prompt_id == to_row(plain(item), "f:9").prompt_id


@pytest.mark.parametrize(
    "path, complaint",
    [
        ("nothing", "give module.function"),
        ("rubric_rl.data.converters.absent", "no attribute 'absent'"),
        ("no_such_module.f", "No module named"),
        ("rubric_rl.data.converters", "not a function"),
        ("broken_converter.convert", "out of order"),
    ],
)
def test_unknown_converter_is_a_clear_error(path, complaint, tmp_path, monkeypatch):
    (tmp_path / "broken_converter.py").write_text("raise RuntimeError('out of order')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=f"^--converter {path}: .*{complaint}"):
        load_converter(path)
