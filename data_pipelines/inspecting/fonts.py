"""Drawing text of any script: with fonts of this machine, else with fonts out of packages, else as code points."""

from __future__ import annotations

import bisect
import functools
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from PIL import ImageDraw, ImageFont

from vdit.errors import UserError
from vdit.io.packages import fetch_package

FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts", "/Library/Fonts")
_NOTO = "fontpkg_noto_sans_{0}/files/NotoSans{1}[wdth,wght].ttf"
PACKAGES = {  # first code point, last: requirement, file, SHA-256
    (0x0590, 0x08FF): (
        "fontpkg-noto-sans-arabic==2.12",
        _NOTO.format("arabic", "Arabic"),
        "63111b5b2e074dd48cc67692e0a2726d86ee94c1c37fe8598257b7b4e87e869e",
    ),
    (0x0900, 0x097F): (
        "fontpkg-noto-sans-devanagari==2.7",
        _NOTO.format("devanagari", "Devanagari"),
        "14ec4af41f27482216d1c2229f417ff9b1425e1babb014e57d1d40d03229853e",
    ),
    (0x0B80, 0x0BFF): (
        "fontpkg-noto-sans-tamil==2.4",
        _NOTO.format("tamil", "Tamil"),
        "aa3a9b321f4b0bb2c40203ffbde9af89713227866e0e13f76e5b9eeea727cf88",
    ),
    (0x0C00, 0x0C7F): (
        "fontpkg-noto-sans-telugu==2.5",
        _NOTO.format("telugu", "Telugu"),
        "e618af7bf999df192ed4f388eba2e563f2b5015034e9cbb317b5bd793bd7334d",
    ),
    (0x0E00, 0x0E7F): (
        "fontpkg-noto-sans-thai==2.2",
        _NOTO.format("thai", "Thai"),
        "5a1c559bb539583c8a1fd99d1c5b9491e5e14478c9cd2bd0970d5c3096cc9ef8",
    ),
    (0x1780, 0x17FF): (
        "fontpkg-noto-sans-khmer==2.4",
        _NOTO.format("khmer", "Khmer"),
        "f37a8431a0c5d5ed2f81a767417546aca576a81fb7eff9c924d46aecf828f2ca",
    ),
    (0x1100, 0xFFEF): (
        "cvttf-notosanscjk-regular==1.0",
        "cvttf_NotoSansCJK_Regular/NotoSansCJKtc-Regular.otf",
        "f57e46120a3dd025ac993801981849622405d1359b32093b1f046490f7885711",
    ),
}
"""Fonts that are fetched when a character is in no font of this machine."""

_UNWANTED = ("Bold", "Italic", "Oblique", "Light", "Thin", "Black", "Mono", "Serif", "Math", "Condensed", "Narrow")

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class Text:
    """Draws lines of text in one size.

    Args:
      size: of the fonts in pixels.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._default = ImageFont.load_default(size)
        self._font_of = functools.cache(self._find)

    def draw(self, draw: ImageDraw.ImageDraw, x: float, y: float, line: str) -> None:
        """Draws a line from its top left."""
        for font, run in self._runs(line):
            draw.text((x, y + self._size), run, fill="black", font=font, anchor="ls")  # on one base line
            x += font.getlength(run)

    def wrap(self, text: str, width: float) -> list[str]:
        """Cuts text into lines of at most `width` pixels: between words, or within one that is longer."""
        lines = [""]
        for word in text.split():
            if self._width(joined := f"{lines[-1]} {word}".strip()) <= width:
                lines[-1] = joined
                continue
            lines += [word] if lines[-1] else []
            lines[-1] = word
            while self._width(lines[-1]) > width:
                rest = lines[-1]
                fits = bisect.bisect_right(range(1, len(rest)), width, key=lambda end: self._width(rest[:end]))
                lines[-1:] = [rest[: max(1, fits)], rest[max(1, fits) :]]
        return lines

    def _width(self, line: str) -> float:
        return sum(font.getlength(run) for font, run in self._runs(line))

    def _runs(self, line: str) -> Iterator[tuple[Font, str]]:
        """Parts of a line with the font of each; marks are drawn with what they stand on."""
        font, run = self._default, ""
        for char in line:
            own: Font | None = font if unicodedata.category(char)[0] in "MZC" else self._font_of(char)
            shown = char
            if own is None:
                own, shown = self._default, f"\\u{ord(char):04x}"
            if own is not font and run:
                yield font, run
                run = ""
            font, run = own, run + shown
        if run:
            yield font, run

    def _find(self, char: str) -> Font | None:
        if _has(self._default, char):
            return self._default
        for path in _installed():
            font = _open(path, self._size)
            if font and _has(font, char):
                return font
        for (first, last), (requirement, member, sha256) in PACKAGES.items():
            if first <= ord(char) <= last:
                try:
                    font = _open(fetch_package(requirement, {member: sha256})[0], self._size)
                except UserError:  # no network: code points are better than no sheet
                    continue
                if font and _has(font, char):
                    return font
        return None


@functools.cache
def _open(path: Path, size: int) -> Font | None:
    try:
        return ImageFont.truetype(path, size)
    except OSError:
        return None


def _has(font: Font, char: str) -> bool:
    """Whether a font has a sign of its own for a character: U+FFFF is never one."""
    return bytes(font.getmask(char)) != bytes(font.getmask("\uffff"))


@functools.cache
def _installed() -> tuple[Path, ...]:
    """Fonts of this machine, upright ones of normal weight without serifs first."""
    paths = [path for folder in FOLDERS for path in Path(folder).expanduser().rglob("*") if _is_font(path)]
    return tuple(sorted(paths, key=lambda path: (sum(word in path.stem for word in _UNWANTED), path.name)))


def _is_font(path: Path) -> bool:
    return path.suffix.lower() in (".ttf", ".otf", ".ttc")
