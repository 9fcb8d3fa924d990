"""Blocks: the code in the README and in the docs, each with its place."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# A block as its own line, as Markdown has it: the fence, a language, perhaps a title.
FENCE = re.compile(r"( *)(`{3,}|~{3,})(.*)")
INFO = re.compile(r'(\w+)(?: title="([^"]+)")?')


@dataclass(frozen=True, slots=True)
class Block:
    """One piece of code; ``file`` is relative to the repository, ``line`` that of its fence."""

    file: str
    line: int
    language: str
    title: str
    code: str

    @property
    def place(self) -> str:
        """`docs/dev.md:12`."""
        return f"{self.file}:{self.line}"

    @property
    def module(self) -> str:
        """A file name of its own: `docs_dev_12`."""
        return re.sub(r"\W", "_", f"{self.file.removesuffix('.md')}_{self.line}")


def blocks_in(text: str, file: str) -> list[Block]:
    """The blocks of one page, in order. A fence that is not closed is an error."""
    found: list[Block] = []
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        opened = FENCE.fullmatch(line)
        if opened is None:
            continue
        indent, fence, info = opened.groups()
        code: list[str] = []
        for _, inner in lines:
            if inner.strip() == fence:
                break
            code.append(inner.removeprefix(indent) + "\n")
        else:
            raise AssertionError(f"{file}:{number}: this block has no end")
        said = INFO.fullmatch(info)
        language, title = (said[1], said[2] or "") if said else (info, "")
        found.append(Block(file, number, language, title, "".join(code)))
    return found


PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
BLOCKS = [block for file, text in PAGES.items() for block in blocks_in(text, file)]


def shown(file: str, start: str) -> str:
    """The one block of a page that begins with this.

    Whoever calls it compares the block with what really is printed: a `text` or `console` block
    that no test asks for is a failure (see test_blocks).
    """
    [block] = [one for one in BLOCKS if one.file == file and one.code.startswith(start)]
    return block.code


def is_shown(shown: str, said: str) -> bool:
    """Whether what a page shows was said, in this order; a line `…` stands for any lines."""
    rest = normalised(said)
    for piece in re.split(r"^…\n", normalised(shown), flags=re.MULTILINE):
        _, found, rest = rest.partition(piece)
        if not found:
            return False
    return True


def assert_shown(shown: str, said: str) -> None:
    """The same, with both texts where it is not so."""
    assert is_shown(shown, said), f"shown:\n{normalised(shown)}\nsaid:\n{normalised(said)}"


def normalised(text: str) -> str:
    """Without what differs each time: times, durations, ids, ports, processes, column widths."""
    text = re.sub(r"\b\d\d:\d\d:\d\d\b", "12:00:00", text)
    # Pages show port 4222, at which other terminals look by themselves.
    text = re.sub(r"^.*n other terminals: export NATS_URL=.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"\bnats://[\w.]+:\d+", "nats://localhost:4222", text)
    text = re.sub(r"\bhttp://localhost:\d+", "http://localhost:8787", text)
    text = re.sub(r"\bpid \d+", "pid 4711", text)
    text = re.sub(r"<?\b\d+(\.\d+)? (ms|s|min)\b", "0 s", text)
    text = re.sub(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "some-id", text)
    text = re.sub(r"\b[0-9a-f]{8}\b", "an-id", text)
    return re.sub(r"(?<=\S) {2,}", "  ", text)
