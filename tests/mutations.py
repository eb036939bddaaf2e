"""Files broken by chance, seeded: bytes flipped, cut, repeated; JSON fields of other types, gone, or nested too deep.

    mutate(path, random.Random(3)) -> "config.json: rope_theta = []"

A safetensors header and a pickle inside a `.bin` are opened first, so that the mutations reach what lies behind them.
"""

import json
import random
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 7, 65536, 1 << 31, 1 << 60, 1 << 63, -(1 << 63), 1 << 64, 10**400,
    0.0, -0.5, 1.5, 1e-300, 1e308, float("inf"), float("-inf"), float("nan"),
    "", "x", "0", "true", "../x", "/etc/passwd", "a\0b", "\ud800", "\u2028", "\x1b[31m", "é" * 300, "x" * 100_000,
    "(((a|b|[a-z_.0-9])+)+)+!", "(",
    [], [[]], [0], [-1], [1, 2, 3], ["x"], [1 << 62, 1 << 62], {}, {"": 0}, {"x": {"y": 1}}, [{}], [None],
]  # fmt: skip
WORDS = ["F32", "F16", "BF16", "F64", "I64", "U8", "BOOL", "F8_E4M3", "I4", "linear", "yarn", "llama3", "llama", "gpt2"]
SIZES = [
    0,
    1,
    2,
    3,
    7,
    255,
    1 << 16,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 60,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
]


def mutate(path: Path, chance: random.Random) -> str:
    """Break a file in place and return what was done."""
    name = path.name
    if chance.random() < 0.03:
        return f"{name}: {_replaced(path, chance)}"
    if path.suffix == ".json" and chance.random() < 0.8 and _is_json(path.read_bytes()):
        return f"{name}: {_json_file(path, chance)}"
    if path.suffix == ".safetensors" and chance.random() < 0.6:
        return f"{name}: {_safetensors(path, chance)}"
    if path.suffix == ".bin" and chance.random() < 0.6:
        return f"{name}: {_archive(path, chance)}"
    data, said = _bytes(path.read_bytes() or b"\0", chance)
    path.write_bytes(data)
    return f"{name}: {said}"


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def _replaced(path: Path, chance: random.Random) -> str:
    path.unlink()
    how = chance.choice(["gone", "empty", "a folder", "a link to itself", "zeros", "a dangling link"])
    if how == "empty":
        path.touch()
    elif how == "a folder":
        path.mkdir()
    elif how == "zeros":
        path.write_bytes(bytes(chance.choice([1, 7, 8, 9, 4096])))
    elif how != "gone":
        path.symlink_to(path.name if how == "a link to itself" else "absent")
    return how


def _bytes(data: bytes, chance: random.Random) -> tuple[bytes, str]:
    """Break bytes, mostly near their beginning or end, where headers lie."""
    size = len(data)
    near = chance.choice([64, 512, 4096, size])
    at = min(size - 1, chance.randrange(max(1, min(near, size))))
    at = max(0, size - 1 - at if chance.random() < 0.3 else at)
    length = chance.choice([1, 2, 4, 8, 100, 5000])
    how = chance.randrange(8)
    if how == 0:
        return data[:at], f"cut at {at}"
    if how == 1:
        return data[:at] + data[at + length :], f"without {length} bytes at {at}"
    if how == 2:
        return data[:at] + chance.randbytes(length) + data[at:], f"{length} more bytes at {at}"
    if how == 3:
        return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :], f"a bit at {at}"
    if how == 4:
        return data[:at] + bytes(length) + data[at + length :], f"{length} zeros at {at}"
    if how == 5:
        return data[:at] + data[at : at + length] * 2 + data[at + length :], f"{length} bytes at {at} twice"
    value, code = chance.choice(SIZES), chance.choice(["<I", "<Q", ">Q", "<H"])
    put = struct.pack(code, value & (1 << 8 * struct.calcsize(code)) - 1)
    return data[:at] + put + data[at + len(put) :], f"{put.hex()} at {at}"


def _json_file(path: Path, chance: random.Random) -> str:
    if chance.random() < 0.05:
        text = chance.choice(
            ["[" * 100_000, '{"a":' * 100_000, "3", "null", '"x"', "{", "[]", "\ufeff{}", "1e999", "NaN", "9" * 5000]
        )
        path.write_text(text)
        return f"holds {text[:20]}"
    value, said = mutated_json(json.loads(path.read_bytes()), chance)
    path.write_text(json.dumps(value, ensure_ascii=chance.random() < 0.9), errors="surrogatepass")
    return said


def mutated_json(value: Any, chance: random.Random) -> tuple[Any, str]:
    """Change one field of a JSON value, at whatever depth."""
    places = list(_places(value))
    depth = chance.choice(sorted({len(keys) for keys, _, _ in places}) or [0])
    chosen = [place for place in places if len(place[0]) == depth]
    if not chosen:
        return chance.choice(VALUES), "another value"
    keys, holder, key = chance.choice(chosen)
    what, how = ".".join(map(str, keys))[:80], chance.randrange(12)
    if how == 0:
        del holder[key]
        return value, f"without {what}"
    if how == 1 and isinstance(holder, dict):
        new = chance.choice([key + "x", key[:-1], "", "__metadata__", key.upper(), "a\nb"])
        holder[new] = holder.pop(key)
        return value, f"{what} is called {new!r}"
    if how == 2:
        other = chance.choice(places)
        holder[key] = json.loads(json.dumps(other[1][other[2]]))
        return value, f"{what} = that of {'.'.join(map(str, other[0]))[:80]}"
    if how == 3:
        for _ in range(chance.choice([10, 200])):
            holder[key] = [holder[key]] if chance.random() < 0.5 else {"x": holder[key]}
        return value, f"{what} nested"
    if how == 4 and isinstance(holder[key], int | float):
        holder[key] = chance.choice(
            [-holder[key], holder[key] * 2, holder[key] + 1, str(holder[key]), float(holder[key])]
        )
    elif how == 5:
        holder[key] = chance.choice(WORDS)
    else:
        holder[key] = chance.choice(VALUES)
    return value, f"{what} = {repr(holder[key])[:60]}"


def _places(value: Any, keys: tuple[Any, ...] = ()) -> "list[tuple[tuple[Any, ...], Any, Any]]":
    found = []
    items = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    for key, item in items:
        found.append(((*keys, key), value, key))
        found += _places(item, (*keys, key))
    return found


def _safetensors(path: Path, chance: random.Random) -> str:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    if _is_json(data[8 : 8 + length]):
        header, said = mutated_json(json.loads(data[8 : 8 + length]), chance)
        text = json.dumps(header).encode()
    else:
        text, said = _bytes(data[8 : 8 + length] or b"{", chance)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    return said


def _archive(path: Path, chance: random.Random) -> str:
    """Write a zip file again with one of its members broken, gone, twice, or packed."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: archive.read(info) for info in archive.infolist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError):  # broken before
        data, said = _bytes(path.read_bytes() or b"PK", chance)
        path.write_bytes(data)
        return said
    names = sorted(members)
    pickles = [name for name in names if name.endswith("data.pkl")]
    chosen = chance.choice(pickles if pickles and chance.random() < 0.7 else names)
    how, said = chance.randrange(10), ""
    packing = zipfile.ZIP_STORED
    if how == 0:
        del members[chosen]
        said = f"without {chosen}"
    elif how == 1:
        other = chance.choice(names)
        members[chosen], said = members[other], f"{chosen} = {other}"
    elif how == 2:
        packing, said = zipfile.ZIP_DEFLATED, "packed"
    else:
        members[chosen], said = _bytes(members[chosen] or b"\0", chance)
        said = f"{chosen}: {said}"
    new = path.with_suffix(".new")
    with zipfile.ZipFile(new, "w", packing) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    shutil.move(new, path)
    return said
