"""The executed pages as HTML, readable without a network."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

from cmat_lib.base.files import write_text

# nbconvert and Plotly's renderer link to require.js, MathJax and mermaid; no page needs them.
_REMOTE_SCRIPT = re.compile(r"<script[^>]*\bsrc=[\"']https?://[^>]*>\s*</script>")
_MERMAID = re.compile(r"<script type=\"module\">(?:(?!</script>).)*?mermaid.*?</script>", re.DOTALL)
_REMOTE_LINK = re.compile(r"<link[^>]*\bhref=[\"']https?://[^>]*>")


def write_page(notebook: Path, target: Path) -> None:
    """Export an executed notebook to one HTML file that loads nothing from the network."""
    body, _ = HTMLExporter(embed_images=True).from_notebook_node(nbformat.read(notebook, as_version=4))
    write_text(target, offline(body))


def offline(page: str) -> str:
    """Page without the scripts and links that would be fetched from the network."""
    for pattern in (_REMOTE_SCRIPT, _MERMAID, _REMOTE_LINK):
        page = pattern.sub("", page)
    return page
