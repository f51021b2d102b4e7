"""Where requests go: the address of an endpoint as users write it, and the proxy on the way."""

import ipaddress
import re
import socket
from urllib.parse import parse_qsl, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from rubric_rl.common.errors import UserError

# In the names of parameters that hold a key, of which the letters alone are looked at.
_SECRET = re.compile(r"key|token|secret|pass|pwd|auth|jwt|bearer|cred|access|^(sig|sk|tok)|code$")
_CHAT = "/chat/completions"
_PORTS = {"http": 80, "https": 443}


def request_url(base: str, api: str, prefix: str) -> str:
    """The URL to post to, for a base URL as the official clients take it.

    /v1 is added where there is no path at all; a query such as ?api-version= stays. Raises
    UserError, which does not repeat the URL: it may hold a password.
    """
    hint = f"name the key in {prefix}api_key_env"
    try:
        parts = urlsplit(base)
        sound = bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
        sound = sound and not parts.fragment
    except ValueError:
        sound = False
    if not sound or parts.scheme not in ("http", "https") or re.search(r"[\s\x00-\x1f\x7f]", base):
        what = f"{prefix}url must begin with http:// or https:// and hold no user name or #"
        raise UserError(f"{what}; {hint}")
    for name, _ in parse_qsl(parts.query.replace(";", "&"), keep_blank_values=True):
        if _SECRET.search(re.sub("[^a-z]", "", name.lower())):
            what = f"{prefix}url has the parameter {name}, which would stand in logs and settings"
            raise UserError(f"{what}; {hint}")
    path = parts.path.rstrip("/")
    if api == "sglang":
        path = path.removesuffix("/generate").removesuffix("/v1") + "/generate"
    elif not path.endswith(_CHAT):
        path = (path or "/v1") + _CHAT
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def proxy_for(url: str) -> str | None:
    """The proxy that the environment names for this URL: HTTP_PROXY, HTTPS_PROXY, NO_PROXY.

    None for an address of this machine or of a private network, where the engines of a run are.
    Raises UserError for a proxy that speaks no HTTP.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(host) or _is_near(host):
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    try:
        sound = bool(urlsplit(proxy).hostname) and urlsplit(proxy).port != 0
        # Behind the host: of a password with a sign that must be written as %23 or %2F.
        sound = sound and "@" not in "".join(urlsplit(proxy)[2:])
    except ValueError:
        sound = False
    if not sound or not proxy.startswith(("http://", "https://")):
        what = f"the environment names a proxy for {parts.scheme} that is no HTTP proxy"
        raise UserError(f"{what}; name an HTTP proxy, or add the endpoint's host to NO_PROXY")
    return proxy


def leads_to(url: str, host: str, port: int) -> bool:
    """Whether a URL leads to this port of this host, by whatever name it calls it.

    An address of the loopback may stand for any name of this machine.
    """
    parts = urlsplit(url)
    if port != (parts.port or _PORTS.get(parts.scheme)):
        return False
    named = parts.hostname or ""
    if named.lower() == host.lower():
        return True
    found = _addresses(named)
    wanted = _addresses(host)
    is_loopback = any(address.is_loopback for address in found | wanted)
    return bool(found and wanted) and (is_loopback or bool(found & wanted))


def _addresses(host: str) -> set[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Those of a host; none where it has no such name."""
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:
        return set()
    return {ipaddress.ip_address(str(place[0]).partition("%")[0]) for *_, place in found}


def _is_near(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host == "localhost"
