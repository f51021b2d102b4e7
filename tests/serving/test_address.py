"""Base URLs as the official clients take them, and the proxies of the environment."""

import re

import pytest

from rubric_rl.common.errors import UserError
from rubric_rl.serving.address import leads_to, proxy_for, request_url

CHAT = "/chat/completions"


@pytest.mark.parametrize(
    "base, path",
    [
        ("", "/v1" + CHAT),
        ("/", "/v1" + CHAT),
        ("/v1", "/v1" + CHAT),
        ("/v1/", "/v1" + CHAT),
        ("/openai/v1", "/openai/v1" + CHAT),
        ("/v1beta/openai/", "/v1beta/openai" + CHAT),
        ("/api/v3", "/api/v3" + CHAT),
        ("/v1/chat/completions", "/v1" + CHAT),
        ("/v1/chat/completions/", "/v1" + CHAT),
        ("/models/org%2Fname/v1", "/models/org%2Fname/v1" + CHAT),
        ("/deployments/x?api-version=1", f"/deployments/x{CHAT}?api-version=1"),
        ("?api-version=1&a=b", f"/v1{CHAT}?api-version=1&a=b"),
    ],
)
def test_an_openai_endpoint_is_asked_where_the_official_client_asks_it(base, path):
    url = request_url(f"https://h:8{base}", "openai", "grader_")
    assert url == f"https://h:8{path}"


@pytest.mark.parametrize("base", ["", "/", "/v1", "/v1/", "/generate", "/generate/"])
def test_an_sglang_server_is_asked_at_generate(base):
    assert request_url(f"http://h:8{base}", "sglang", "grader_") == "http://h:8/generate"
    assert request_url(f"http://h/a{base}", "sglang", "grader_") == "http://h/a/generate"


def test_an_ipv6_address_is_one():
    assert request_url("http://[::1]:30000", "sglang", "grader_") == "http://[::1]:30000/generate"


@pytest.mark.parametrize(
    "base",
    [
        "h:8",
        "ftp://h",
        "http:///v1",
        "http://?a=1",
        "http://user:secret@h",
        "http://h:port",
        "http://h:0",
        "http://h:99999",
        "http://[::1",
        "http://h/a b",
        "http://h/v1#api_key=x",
        "http://h/\x00",
        "http://h\n/v1",
    ],
)
def test_an_address_that_cannot_work_is_refused_and_not_shown(base):
    with pytest.raises(UserError, match="policy_url must begin with http") as refusal:
        request_url(base, "openai", "policy_")
    assert base not in str(refusal.value)


NAMES = "key api_key api-key API_KEY token sig client_secret x-goog-api-key authorization code"
MORE_NAMES = "access_key_id pass jwt bearer apikey1 credential sk keys api_key[]"


@pytest.mark.parametrize("name", [*NAMES.split(), *MORE_NAMES.split()])
def test_a_key_in_the_query_is_refused_since_the_url_stands_in_settings_and_records(name):
    with pytest.raises(
        UserError, match=f"parameter {re.escape(name)}.* grader_api_key_env"
    ) as refusal:
        request_url(f"http://h/v1?a=1&{name}=sk-123", "openai", "grader_")
    assert "sk-123" not in str(refusal.value)


class TestProxy:
    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch):
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")

    def test_is_the_environments_for_the_scheme(self):
        assert proxy_for("https://api.example.com/v1") == "http://proxy:3128"
        assert proxy_for("http://api.example.com/v1") is None

    def test_may_lack_its_scheme(self, monkeypatch):
        monkeypatch.setenv("HTTP_PROXY", "proxy:3128")
        assert proxy_for("http://api.example.com") == "http://proxy:3128"

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "10.1.2.3", "192.168.0.9"])
    def test_is_none_for_an_engine_of_the_cluster(self, host):
        assert proxy_for(f"https://{host}:30000/generate") is None

    def test_is_none_for_what_no_proxy_names(self, monkeypatch):
        monkeypatch.setenv("NO_PROXY", "example.com")
        assert proxy_for("https://api.example.com/v1") is None

    @pytest.mark.parametrize(
        "proxy",
        ["socks5://user:secret@proxy:1080", "http://user:12#secret@proxy:80", "u:1/secret@p"],
    )
    def test_of_another_kind_is_refused(self, monkeypatch, proxy):
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        with pytest.raises(UserError, match=r"no HTTP proxy.* NO_PROXY") as refusal:
            proxy_for("https://api.example.com/v1")
        assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    "url, host, port, leads",
    [
        ("http://127.0.0.1:30000/v1", "127.0.0.1", 30000, True),
        ("http://localhost:30000", "127.0.0.1", 30000, True),
        ("http://localhost:30000", "10.1.2.3", 30000, True),  # perhaps: this machine's own name
        ("http://10.1.2.3:30000", "10.1.2.3", 30000, True),
        ("http://Router.invalid", "router.invalid", 80, True),
        ("http://127.0.0.1:30001", "127.0.0.1", 30000, False),
        ("http://10.1.2.4:30000", "10.1.2.3", 30000, False),
        ("http://other.invalid:30000", "10.1.2.3", 30000, False),
        ("https://10.1.2.3", "10.1.2.3", 443, True),
    ],
)
def test_one_place_has_several_names(url, host, port, leads):
    assert leads_to(url, host, port) is leads
