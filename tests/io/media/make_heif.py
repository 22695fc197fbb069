"""HEIC and AVIF pictures of tiles, put together box by box: no library here writes them."""

import pathlib
import struct
from collections.abc import Sequence

import numpy as np
import pillow_heif
from PIL import Image


def write_grid(
    path: pathlib.Path, tiles: Sequence[np.ndarray], rows: int, columns: int, quarters: int = 0
) -> pathlib.Path:
    """Writes tiles of one size, from the top left row by row; the suffix of the path chooses the codec.

    The whole is to be turned by `quarters` counter-clockwise.
    """
    encoded = [_encode(path, tile) for tile in tiles]
    height, width = tiles[0].shape[:2]
    item, config = (b"av01", b"av1C") if path.suffix == ".avif" else (b"hvc1", b"hvcC")
    brand = b"avif" if path.suffix == ".avif" else b"heic"
    numbers = range(1, len(tiles) + 1)
    grid = len(tiles) + 1
    layout = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, columns * width, rows * height)
    infe = [_full(b"infe", 2, 1, struct.pack(">HH4sB", i, 0, item, 0)) for i in numbers]
    infe.append(_full(b"infe", 2, 0, struct.pack(">HH4sB", grid, 0, b"grid", 0)))
    references = _box(b"dimg", struct.pack(f">HH{len(tiles)}H", grid, len(tiles), *numbers))
    sizes = [(width, height), (columns * width, rows * height)]
    properties = [
        _box(config, _find(encoded[0], config)),
        *(_full(b"ispe", 0, 0, struct.pack(">II", *s)) for s in sizes),
    ]
    properties.append(_full(b"pixi", 0, 0, b"\3\10\10\10"))
    properties.append(_box(b"irot", bytes([quarters])))
    owned = [(i, (0x81, 2, 4)) for i in numbers] + [(grid, (3, 4, 0x85))]
    ipma = struct.pack(">I", len(owned)) + b"".join(struct.pack(">HB", i, len(p)) + bytes(p) for i, p in owned)
    iprp = _box(b"iprp", _box(b"ipco", b"".join(properties)) + _full(b"ipma", 0, 0, ipma))
    data = [_find(file, b"mdat") for file in encoded]
    ftyp = _box(b"ftyp", brand + struct.pack(">I", 0) + b"mif1" + brand)

    def meta(start: int) -> bytes:
        places = b""
        for i, each in zip(numbers, data, strict=True):
            places += struct.pack(">HHHHII", i, 0, 0, 1, start, len(each))
            start += len(each)
        places += struct.pack(">HHHHII", grid, 1, 0, 1, 0, len(layout))  # in idat
        iloc = _full(b"iloc", 1, 0, struct.pack(">BBH", 0x44, 0, len(tiles) + 1) + places)
        handler = _full(b"hdlr", 0, 0, struct.pack(">I4s12sB", 0, b"pict", b"", 0))
        iinf = _full(b"iinf", 0, 0, struct.pack(">H", len(infe)) + b"".join(infe))
        primary = _full(b"pitm", 0, 0, struct.pack(">H", grid))
        parts = (handler, primary, iloc, iinf, _full(b"iref", 0, 0, references), iprp, _box(b"idat", layout))
        return _full(b"meta", 0, 0, b"".join(parts))

    start = len(ftyp) + len(meta(0)) + 8
    path.write_bytes(ftyp + meta(start) + _box(b"mdat", b"".join(data)))
    return path


def _encode(path: pathlib.Path, tile: np.ndarray) -> bytes:
    if path.suffix == ".avif":
        Image.fromarray(tile).save(path, quality=90)
    else:
        pillow_heif.from_pillow(Image.fromarray(tile)).save(path, quality=90, save_nclx_profile=False)
    return path.read_bytes()


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _full(kind: bytes, version: int, flags: int, content: bytes) -> bytes:
    return _box(kind, struct.pack(">I", version << 24 | flags) + content)


def _find(file: bytes, kind: bytes) -> bytes:
    """Content of the first box of a kind."""
    at = file.index(kind)
    return file[at + 4 : at - 4 + struct.unpack(">I", file[at - 4 : at])[0]]
