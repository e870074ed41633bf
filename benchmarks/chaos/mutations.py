"""Mutations of valid files: of bytes, of text, of nested values, and of the members of containers."""

import gzip
import io
import json
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

CANARY = "/tmp/chaos-canary"
"""A file that is made by whatever runs the code in hostile inputs."""
WORDS = (
    *(b"nan", b"inf", b"-inf", b"1e999", b"-1", b"0", b"1e-320", b"1e39", b"18446744073709551616", b"9" * 400),
    *(b"null", b"true", b"[]", b"{}", b"[" * 300, b'{"a":' * 300, b'"""', b"'''", b"\n\n", b",", b";", b"\t", b"#"),
    *(b"\x00", b"\x1b[2J", b"\xff\xfe", b"\xef\xbb\xbf", "\u202e".encode(), "\u0661".encode(), b"\xed\xa0\x80"),
    *(b"../../../../etc/passwd", b"~nobody", b"/dev/zero", b"<script>alert(1)</script>", b"]]>", b"%s%n", b"a" * 9000),
    f"$(touch {CANARY})".encode(),
    f"__import__('os').system('touch {CANARY}')".encode(),
    f"cposix\nsystem\n(S'touch {CANARY}'\ntR.".encode(),
    f"!!python/object/apply:os.system ['touch {CANARY}']".encode(),
)
NUMBERS = (0, 1, 2, 3, 127, 128, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1)
VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 2**31, 2**53 + 1, 2**63, 2**64, 10**30, -(10**30), 10**400),
    *(0.0, -0.0, 1e39, 1e308, -1e308, 1e-320, float("nan"), float("inf"), float("-inf"), 0.5, 1e-9, 1e9),
    *(
        "",
        "nan",
        "1",
        "x" * 5000,
        "\x00",
        "\x1b[31m",
        "<script>alert(1)</script>",
        "../../x",
        "a\nb",
        "\u202e",
        "\ud800",
    ),
    *([], {}, [[]], [None], [1, 2], ["a"], [[1], [2, 3]], {"a": 1}, {"": None}, [0.5] * 400, [True, "x", 1.5]),
)
Rng = random.Random


def mutate_bytes(data: bytes, rng: Rng, others: Sequence[bytes] = ()) -> bytes:
    """One to four random changes anywhere in a file."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(changed) + 1)
        rng.choice(_CHANGES)(changed, place, rng, others)
    return bytes(changed[:MAX_BYTES])


MAX_BYTES = 1 << 20


def _flip(data: bytearray, place: int, rng: Rng, others: Sequence[bytes]) -> None:
    if data:
        data[place % len(data)] ^= 1 << rng.randrange(8)


def _number(data: bytearray, place: int, rng: Rng, others: Sequence[bytes]) -> None:
    size = rng.choice((1, 2, 4, 8))
    value = rng.choice(NUMBERS) % 256**size
    data[place : place + size] = value.to_bytes(size, rng.choice(("little", "big")))


def _delete(data: bytearray, place: int, rng: Rng, others: Sequence[bytes]) -> None:
    del data[place : place + rng.choice((1, 2, 8, 64, 1000))]


def _cut(data: bytearray, place: int, rng: Rng, others: Sequence[bytes]) -> None:
    del data[place:]


def _repeat(data: bytearray, place: int, rng: Rng, others: Sequence[bytes]) -> None:
    piece = bytes(data[place : place + rng.choice((1, 8, 64, 1000))])
    data[place:place] = piece * rng.choice((1, 2, 20))


def _insert(data: bytearray, place: int, rng: Rng, others: Sequence[bytes]) -> None:
    data[place:place] = rng.choice(WORDS) if rng.random() < 0.7 else rng.randbytes(rng.choice((1, 4, 100)))


def _replace_word(data: bytearray, place: int, rng: Rng, others: Sequence[bytes]) -> None:
    words = list(re.finditer(rb"[-+.\w]{1,40}", bytes(data[:100_000])))
    if words:
        chosen = rng.choice(words)
        data[chosen.start() : chosen.end()] = rng.choice(WORDS)


def _splice(data: bytearray, place: int, rng: Rng, others: Sequence[bytes]) -> None:
    if others:
        other = rng.choice(others)
        data[place:] = other[rng.randrange(len(other) + 1) :]


_CHANGES = (_flip, _flip, _number, _number, _delete, _cut, _repeat, _insert, _replace_word, _replace_word, _splice)


def mutate_value(value: Any, rng: Rng) -> Any:
    """One to three random changes in nested lists and tables; the value given is left alone."""
    changed = _copy(value)
    for _ in range(rng.choice((1, 1, 2, 3))):
        if rng.random() < 0.02:
            changed = _copy(rng.choice(VALUES))
        else:
            _change_inside(changed, rng)
    return changed


def _copy(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _change_inside(value: Any, rng: Rng) -> None:
    holders = [holder for holder in _holders(value) if holder]
    if not holders:
        return
    holder = rng.choice(holders)
    key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    action = rng.random()
    if action < 0.65:
        holder[key] = _copy(rng.choice(VALUES))
    elif action < 0.75:
        del holder[key]
    elif action < 0.85:
        other = rng.choice(holders)
        holder[key] = _copy(rng.choice(list(other.values() if isinstance(other, dict) else other)))
    elif isinstance(holder, dict):
        holder[rng.choice(("", "x" * 300, "beta", "__class__", "a.b", "\x1b", key.upper(), key + "s"))] = _copy(
            holder[key]
        )
    else:
        for _ in range(rng.choice((1, 3))):
            holder.extend(_copy(holder[:50]))


def _holders(value: Any) -> list[Any]:
    """All lists and tables in a nested value."""
    found = [value] if isinstance(value, dict | list) else []
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if isinstance(inner, dict | list):
            found += _holders(inner)
    return found


def mutate_json(data: bytes, rng: Rng, others: Sequence[bytes] = ()) -> bytes:
    """A JSON file with changed values, or changed bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(data, rng, others)
    return json.dumps(mutate_value(json.loads(data), rng)).encode()


def mutate_safetensors(data: bytes, rng: Rng, others: Sequence[bytes] = ()) -> bytes:
    """A model file with changed bytes, or with a changed header whose length is right."""
    if rng.random() < 0.3:
        return mutate_bytes(data, rng, others)
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    if rng.random() < 0.6:
        metadata = header["__metadata__"]
        name = rng.choice(sorted(metadata))
        try:
            inner = json.loads(metadata[name])
        except ValueError:
            inner = metadata[name]
        metadata[name] = json.dumps(mutate_value(inner, rng))
    else:
        header = mutate_value(header, rng)
    if rng.random() < 0.3:
        words = bytearray(body)
        value = rng.choice((float("nan"), float("inf"), -1e38, 1e38, 0.0, 1e-40))
        place = 4 * rng.randrange(max(1, len(words) // 4))
        words[place : place + 4] = struct.pack("<f", value)
        body = bytes(words)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def mutate_zip(data: bytes, rng: Rng, others: Sequence[bytes] = ()) -> bytes:
    """A zip archive with changed bytes, or with one changed member whose checksum is right."""
    if rng.random() < 0.3 or not data.startswith(b"PK"):
        return mutate_bytes(data, rng, others)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    chosen = rng.choice(sorted(members))
    members[chosen] = mutate_npy(members[chosen], rng, list(members.values()))
    if rng.random() < 0.2:
        members[rng.choice(("x.npy", "train.npy", "../x.npy", "labels.npy", "counts.npy", "readme"))] = members[chosen]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


DTYPES = ("<f4", ">f8", "|b1", "<i8", "<u2", "|O", "<U7", "<M8[s]", "<c8", "|V4", "<f2", "|S3", "<f16", ">i1")


def mutate_npy(data: bytes, rng: Rng, others: Sequence[bytes] = ()) -> bytes:
    """An array file with changed bytes, or with another type, shape or order in its header."""
    if rng.random() < 0.5 or not data.startswith(b"\x93NUMPY"):
        return mutate_bytes(data, rng, others)
    (length,) = struct.unpack("<H", data[8:10])
    text, body = data[10 : 10 + length].decode("latin-1").rstrip(), data[10 + length :]
    shape = rng.choice(
        ("()", "(0,)", "(-1,)", f"({2**62},)", "(3,)*9", "(1, 1)", "(2, 3, 4)", "(10**9, 10**9)", "True")
    )
    change = rng.random()
    if change < 0.4:
        text = re.sub(r"'descr': '[^']*'", f"'descr': '{rng.choice(DTYPES)}'", text)
    elif change < 0.7:
        text = re.sub(r"'shape': \([^)]*\)", f"'shape': {shape}", text)
    elif change < 0.8:
        text = text.replace("False", "True")
    else:
        text = mutate_bytes(text.encode("latin-1"), rng).decode("latin-1")[:60_000]
    head = text.encode("latin-1", "replace") + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + body


def mutate_png(data: bytes, rng: Rng, others: Sequence[bytes] = ()) -> bytes:
    """An image with changed bytes; of a PNG, also one changed chunk whose checksum is right."""
    if rng.random() < 0.5 or not data.startswith(b"\x89PNG"):
        return mutate_bytes(data, rng, others)
    chunks, place = [], 8
    while place + 12 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    chosen = rng.randrange(len(chunks))
    kind, content = chunks[chosen]
    if kind == b"IDAT" and rng.random() < 0.5:
        content = zlib.compress(mutate_bytes(zlib.decompress(content), rng))
    else:
        content = mutate_bytes(content, rng)
    chunks[chosen] = (kind, content)
    if rng.random() < 0.2:
        extra = rng.choice((b"tEXt", b"eXIf", b"iCCP", b"PLTE", b"acTL", b"gAMA"))
        chunks.insert(1, (extra, mutate_bytes(b"Exif\x00\x00II*\x00", rng)))
    parts = [struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks]
    return data[:8] + b"".join(parts)


def mutate_gzip(data: bytes, rng: Rng, others: Sequence[bytes] = ()) -> bytes:
    """A file with changed bytes; of a gzip file, also changed content that is compressed again."""
    if rng.random() < 0.5 or not data.startswith(b"\x1f\x8b"):
        return mutate_bytes(data, rng, others)
    return gzip.compress(mutate_bytes(gzip.decompress(data), rng), 1)
