"""Pages: what mkdocs does besides rendering. It fills in the reference, the pictures, our files."""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path

import reference  # mkdocs finds what lies beside a hook
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

log = logging.getLogger("mkdocs.hooks.pages")  # below mkdocs: a warning ends a strict build

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent

WIDE = ("from-", "reliability")  # two pieces of code side by side, a table of many columns
PICTURE = re.compile(r"^!\[[^\]]*\]\((pictures/[\w-]+\.svg)\)$", re.MULTILINE)
OUTSIDE = re.compile(r"\]\((\.\./[\w./-]+)\)")
FETCHED = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"((?:https?:)?//[^\"]+)")
LANGUAGES = {".py": "python", ".cjs": "js", ".yaml": "yaml", ".service": "ini"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Every decision is in the navigation, the oldest first."""
    for section in config.nav or []:
        for entry in next(iter(section.values())):
            if "Decisions" in entry:
                entry["Decisions"] = [
                    f"decisions/{path.name}" for path in sorted((DOCS / "decisions").glob("*.md"))
                ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """A page for every file of ours that the docs point to and that is no page."""
    names: set[str] = set()
    for page in files.documentation_pages():
        text = Path(str(page.abs_src_path)).read_text("utf-8")
        names |= {target(page.src_uri, link) for link in OUTSIDE.findall(text)}
    for name in sorted(names):
        if not (ROOT / name).is_file():
            log.warning("a page leads to %s, which is no file", name)
        elif not name.startswith("docs/"):
            file = File.generated(config, page_of(name), content=shown(name))
            file.inclusion = InclusionLevel.NOT_IN_NAV
            files.append(file)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The text of a page with all that is made at build time."""
    uri = page.file.src_uri
    if uri.startswith(WIDE):
        page.meta["hide"] = ["toc"]
    markdown = reference.filled(markdown)
    markdown = PICTURE.sub(lambda found: picture(found[1]), markdown)
    return OUTSIDE.sub(lambda found: f"]({moved(uri, found[1])})", markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Whoever reads a page tells nobody: nothing in it comes from elsewhere."""
    for url in FETCHED.findall(output):
        log.warning("%s would be fetched from elsewhere: %s", page.file.src_uri, url)
    return output


def target(uri: str, link: str) -> str:
    """The file a link of a page leads to, from the root of the repository."""
    return posixpath.normpath(posixpath.join("docs", posixpath.dirname(uri), link))


def moved(uri: str, link: str) -> str:
    """The same link on the site, where such a file has a page of its own."""
    name = target(uri, link)
    if name.startswith("docs/"):
        return link
    return posixpath.relpath(page_of(name), posixpath.dirname(uri) or ".")


def page_of(name: str) -> str:
    """Where such a file is shown."""
    return f"files/{name}.md"


def shown(name: str) -> str:
    """Its page: the file as it is."""
    text = (ROOT / name).read_text("utf-8")
    return f"# {name}\n\n~~~~{LANGUAGES.get(Path(name).suffix, 'text')}\n{text}~~~~\n"


def picture(name: str) -> str:
    """The picture itself in the place of a link to it, so that it follows the page's colours."""
    return f'<figure class="picture">\n{(DOCS / name).read_text("utf-8")}</figure>'
