"""Source `stamps`: the pictures of Tux Paint's stamps with their English names, from a Debian package."""

from __future__ import annotations

from pathlib import Path

from data_pipelines.media.clip import Input, Options, hashed_split, limited
from data_pipelines.sources.captions import KIND, decode_text
from vdit.errors import UserError
from vdit.io.packages import fetch_debian_package

LICENCE = "GPL-2+ and public domain; see /usr/share/doc/tuxpaint-stamps-default/copyright of the package"
PACKAGE, VERSION = "tuxpaint-stamps-default", "2022.06.04-1"
SHA256 = "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34"
TREE = "usr/share/tuxpaint/stamps"
_MIRRORED = "_mirror"


def inputs(options: Options) -> list[Input]:
    """All stamps by name; one that is another's mirror image has its caption.

    Raises:
      UserError: if they cannot be fetched, or --stamps has none.
    """
    if options.stamps:
        root = Path(options.stamps)
    else:
        hint = "or unpack that package elsewhere and give --stamps=DIR"
        root = fetch_debian_package(PACKAGE, VERSION, SHA256, hint) / TREE
    listed = []
    for path in sorted(root.rglob("*.png")):
        item = path.relative_to(root).as_posix()
        split = hashed_split(item.replace(_MIRRORED, ""), options.val)  # both images lie in the same split
        listed.append(Input(item, split, str(path), path.stat().st_size, {KIND: _caption(path)}))
    if not listed:
        raise UserError(
            f"--stamps={options.stamps} holds no .png; name the folder usr/share/tuxpaint/stamps of the package"
        )
    return limited(listed, options.limit)


def _caption(path: Path) -> str:
    """The first line of the .txt beside a stamp; the following ones are translations."""
    text = path.with_suffix(".txt")
    if not text.exists():
        text = path.with_name(path.name.replace(_MIRRORED, "")).with_suffix(".txt")
    if not text.exists():
        return ""
    return decode_text(str(text), text.read_bytes().partition(b"\n")[0])
