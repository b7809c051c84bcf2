"""The page at ``/``: what is served, an observation to try, how long answers take. One file, nothing from elsewhere.

Its browser is told to load and run nothing but what is in it, by hash, and to speak to nobody but this server.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from pathlib import Path


@functools.cache
def html() -> bytes:
    """The page."""
    return Path(__file__).with_name("page.html").read_bytes()


@functools.cache
def headers() -> dict[str, str]:
    """What it is sent with."""
    script, style = (_hash_of(tag) for tag in ("script", "style"))
    policy = (
        f"default-src 'none'; script-src '{script}'; style-src '{style}'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }


def _hash_of(tag: str) -> str:
    found = re.search(rb"<%b>(.*?)</%b>" % (tag.encode(), tag.encode()), html(), re.DOTALL)
    assert found is not None, f"page.html has one {tag}"
    return f"sha256-{base64.b64encode(hashlib.sha256(found[1]).digest()).decode()}"
