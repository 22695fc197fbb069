"""Which files may hold videos or pictures: by their names, and by how they begin."""

from __future__ import annotations

import stat

VIDEO_SUFFIXES = (
    *(".mp4", ".mov", ".m4v", ".qt", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".divx", ".flv", ".f4v", ".wmv", ".asf"),
    *(".ts", ".mts", ".m2ts", ".m2t", ".mpg", ".mpeg", ".mpe", ".m1v", ".m2v", ".vob", ".mxf", ".ogv", ".ogg", ".ogm"),
    *(".y4m", ".nut", ".ivf", ".dv", ".h264", ".264", ".hevc", ".h265", ".265"),
)
PICTURE_SUFFIXES = (
    *(".gif", ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".heic", ".heif", ".hif"),
    *(".heics", ".heifs", ".avifs", ".avci", ".avcs"),
    *(".bmp", ".dib", ".tif", ".tiff", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".qoi"),
)
MEDIA_SUFFIXES = (*VIDEO_SUFFIXES, *PICTURE_SUFFIXES)
"""Names that a source folder's videos and pictures have; what a file really is is decided by its content."""

HEAD_BYTES = 64
"""Bytes at the start of a file from which its type is detected."""

_MAGIC = (
    (b"\xff\xd8\xff", ("JPEG", "MPO")),
    (b"\x89PNG\r\n", ("PNG",)),
    (b"GIF8", ("GIF",)),
    (b"BM", ("BMP",)),
    (b"II*\0", ("TIFF",)),
    (b"MM\0*", ("TIFF",)),
    (b"II+\0", ("TIFF",)),
    (b"MM\0+", ("TIFF",)),
    (b"\0\0\0\x0cjP  ", ("JPEG2000",)),
    (b"\xff\x4f\xff\x51", ("JPEG2000",)),
    (b"qoif", ("QOI",)),
    *((b"P%d" % digit, ("PPM",)) for digit in range(1, 7)),
)
_AVIF, _HEIF = {b"avif", b"avis"}, {b"heic", b"heix", b"heim", b"heis", b"mif1"}
_SEQUENCES = {b"msf1", b"hevc", b"hevx", b"avcs"}


def picture_formats(head: bytes) -> tuple[str, ...]:
    """Pillow's names of the picture formats that a file begins like; empty if it begins like none."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return ("WEBP",)
    if (brands := _brands(head)) and head[8:12] in _AVIF | _HEIF:  # a video may list them among its compatible brands
        return ("AVIF",) if brands & _AVIF else ("HEIF",)
    return next((formats for magic, formats in _MAGIC if head.startswith(magic)), ())


def holds_sequence(head: bytes) -> bool:
    """Whether a file begins like one in HEIF whose pictures follow each other in time: FFmpeg reads these as videos."""
    return bool(_brands(head) & _SEQUENCES)


def _brands(head: bytes) -> set[bytes]:
    """What an ISO media file says that it is; empty if it is none."""
    if head[4:8] != b"ftyp":
        return set()
    return {head[i : i + 4] for i in range(8, min(len(head), int.from_bytes(head[:4], "big")), 4)}


def file_type(mode: int) -> str:
    """What something in a folder is, in words, by its `st_mode`."""
    names = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    return next((name for test, name in names if test(mode)), "a file")
