"""Makes hostile requests: torn, deep, huge, wrong, and valid ones with a word changed. Deterministic from a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass

KINDS = (
    "application/json",
    "application/json; charset=utf-16",
    "text/plain",
    "image/tiff",
    "application/zip",
    "text/csv",
    "application/vnd.apache.parquet",
    "multipart/form-data; boundary=x",
    "application/x-www-form-urlencoded",
    "application/octet-stream",
    "",
)
POSTS = (
    "/v1/predictions",
    "/v1/molecules",
    "/v1/profiles",
    "/v1/profiles/score",
    "/v1/predictions/{id}/links",
    "/v1/predictions/{id}/cancel",
)
GETS = (
    "/v1/predictions/{word}",
    "/v1/predictions?after={word}&limit={word}&status={word}",
    "/v1/predictions/{id}/molecules/{word}/pictures/{word}",
    "/v1/predictions/{id}/molecules/0/pictures/0?channel={word}&channels={word}&low={word}&high={word}&size={word}",
    "/v1/predictions/{id}/molecules/0/pictures/0?format=raw&size={word}",
    "/v1/predictions/{id}/molecules/0/compound.zarr/{word}",
    "/v1/predictions/{id}/molecules/0/{word}.zarr/.zattrs",
    "/v1/predictions/{id}/molecules/0/settling?feature={word}",
    "/v1/predictions/{id}/molecules/0/grid?by={word}&limit={word}",
    "/v1/profiles/{word}/profile?format={word}",
    "/s/{word}/v1/predictions/{id}/files.zip",
    "/{word}",
)
SMILES = (
    "CCO",
    "c1ccccc1",
    "C" * 300,
    "(" * 500,
    "[" * 90,
    "C1" * 60,
    "CC>>C",
    "[13CH4]",
    "C.C.C",
    "\u202e",
    "*",
    "[Og]",
)
WORDS = (
    *("..", "../..", "%2e%2e%2f", "..%5c..", "%00", "a%0d%0aSet-Cookie:%20x", "-1", "1e309", "NaN", "9" * 20),
    *("' OR 1=1 --", "<script>", "${jndi:ldap://x}", "%ff%fe", "a" * 300, "0x10", "null", ".zattrs", "0/0/0/0/0"),
    *("0/../../x", "true", "%F0%9F%A7%AC", "*", "{}", "[]", ";", "con", "~root", "file:///etc/passwd", "\u202e"),
)
HEADERS = (
    *(("Idempotency-Key", "\x7f"), ("Range", "bytes=-0"), ("Range", "bytes=99999999999999999999-"), ("Host", "e.vil")),
    *(("Last-Event-ID", "-5"), ("Last-Event-ID", "9" * 50), ("X-Request-Id", "a b\tc"), ("Origin", "null")),
    *(("Authorization", "Bearer " + "x" * 9000), ("Content-Length", "abc"), ("Content-Length", "-1")),
    *(("Content-Encoding", "gzip"), ("Accept", "nothing/nowhere"), ("Transfer-Encoding", "chunked")),
)


@dataclass(frozen=True)
class Attack:
    """One request; it may succeed where a change left it valid."""

    method: str
    path: str
    body: bytes
    headers: dict[str, str]


def attacks(seed: int, n: int, key: str) -> Iterator[Attack]:
    """`n` requests; `key` is the id of a finished prediction."""
    rng = random.Random(seed)
    for _ in range(n):
        headers = {"content-type": rng.choice(KINDS[:1] * 8 + KINDS)}
        if rng.random() < 0.15:
            name, value = rng.choice(HEADERS)
            headers[name] = value
        if rng.random() < 0.25:
            path = rng.choice(GETS).replace("{id}", key)
            while "{word}" in path:
                path = path.replace("{word}", rng.choice(WORDS), 1)
            yield Attack(rng.choice(("GET", "GET", "HEAD", "DELETE", "PUT", "OPTIONS", "PATCH")), path, b"", headers)
            continue
        path = rng.choice(POSTS).replace("{id}", key)
        yield Attack(
            "POST", path + rng.choice(("", "", "?wait=-1", "?wait=nan", "?engine=x&unit=y")), _body(rng), headers
        )


def _body(rng: random.Random) -> bytes:
    kind = rng.randrange(8)
    if kind == 0:
        return rng.randbytes(rng.choice((0, 1, 10, 1000, 30_000)))
    if kind == 1:
        opening = rng.choice((b"[", b'{"a":', b'[{"smiles":'))
        return opening * rng.choice((10, 33, 1000, 8000))
    if kind == 2:
        text = json.dumps(_valid(rng)).encode()
        cut = bytearray(text[: rng.randint(0, len(text))])
        for _ in range(rng.randint(0, 4)):
            if cut:
                cut[rng.randrange(len(cut))] = rng.randrange(256)
        return bytes(cut)
    if kind == 3:
        marks = (b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"PK\x03\x04", b"PAR1", b"\x89PNG\r\n\x1a\n", b"\x1f\x8b")
        return rng.choice(marks) + rng.randbytes(rng.choice((0, 8, 200, 4000)))
    value = _valid(rng)
    for _ in range(rng.randint(1, 3)):
        value[rng.choice((*value, "extra", "__proto__", ""))] = _nonsense(rng, 3)
    return json.dumps(value).encode() if kind < 7 else json.dumps(value).replace('"', "'").encode()


def _valid(rng: random.Random) -> dict[str, object]:
    return {
        "smiles": rng.choice(([rng.choice(SMILES) for _ in range(rng.randint(1, 4))], rng.choice(SMILES))),
        "draws": rng.choice((1, 2)),
        "seed": rng.randint(0, 9),
    }


def _nonsense(rng: random.Random, levels: int) -> object:
    if levels and rng.random() < 0.3:
        return [_nonsense(rng, levels - 1) for _ in range(rng.randint(0, 4))]
    if levels and rng.random() < 0.2:
        return {rng.choice(WORDS): _nonsense(rng, levels - 1) for _ in range(rng.randint(0, 3))}
    choices = (None, True, -1, 0, 1.5, 1e308, 2**63, -(2**70), "", "x" * 2500, "\u0000", "\ud800", *WORDS, *SMILES)
    return rng.choice(choices)
