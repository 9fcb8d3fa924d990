"""Report: figures into docs/performance.md, between marks; the words around them stay. Pure."""

from __future__ import annotations

import re

from .goals import table_of_goals
from .results import Results
from .tables import as_markdown, table_of

# <!--figures: drain--> … <!--end: drain-->; without spaces: those with are filled in by the site.
_MARKED = re.compile(
    r"(?P<open><!--figures: (?P<name>[\w-]+)-->\n).*?(?P<close><!--end: (?P=name)-->)",
    re.DOTALL,
)
_OPENED = re.compile(r"<!--figures: ([\w-]+)-->")


def rendered(page: str, results: Results) -> str:
    """The page with every marked part made anew. Raises ValueError for a mark without its end,
    and for measured cases that no mark shows."""
    found = {match["name"] for match in _MARKED.finditer(page)}
    if lost := set(_OPENED.findall(page)) - found:
        raise ValueError(f"no <!--end: {sorted(lost)[0]}--> in the page")
    groups = {case.group for case in results.cases.values()}
    if hidden := groups - found:
        raise ValueError(f"no <!--figures: {sorted(hidden)[0]}--> in the page")
    return _MARKED.sub(
        lambda match: f"{match['open']}\n{_part(match['name'], results)}\n\n{match['close']}", page
    )


def _part(name: str, results: Results) -> str:
    if name == "machine":
        return machine_of(results)
    if name == "goals":
        return as_markdown(table_of_goals(results), titled=False)
    cases = [case for case in results.cases.values() if case.group == name]
    return "\n\n".join(as_markdown(table_of(case)) for case in cases) or "Not measured yet."


def machine_of(results: Results) -> str:
    """The machine and the versions, as a sentence each, and when it was."""
    machine = results.machine
    days = sorted({case.when for case in results.cases.values()})
    commits = sorted({case.commit for case in results.cases.values()})
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory']},"
        f" {machine['system']}.\n{versions}.\n"
        f"Measured {' and '.join(days)}, omni-worker at {', '.join(commits)}."
    )
