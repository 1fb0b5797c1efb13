"""Configure Sphinx, with which `make docs` builds the site. docs/index.md is its first page.

The source folder is the whole repository, because pages in docs/ link to the READMEs of other folders.
"""

from sphinx.application import Sphinx

CONTENTS = {
    "Tutorials": ["docs/ta-tutorial", "docs/your-own-course", "docs/add-an-exercise"],
    "Guides": [
        "docs/ta-guide",
        "docs/live",
        "docs/if-it-fails",
        "docs/roster-and-late-work",
        "docs/instructor-guide",
        "docs/publishing",
        "solutions/README",
        "graders/README",
        "mistakes/README",
        "docs/scaling",
        "CONTRIBUTING",
        "docs/readers",
    ],
    "Reference": ["docs/grading-toml", "docs/formats", "SECURITY", "CHANGELOG"],
    "Explanation": ["README", "docs/architecture", "docs/sandbox"],
}

project = html_title = "Transformers in two days"
extensions = ["myst_parser"]
include_patterns = [
    "docs/index.md",
    *(f"{page}.md" for pages in CONTENTS.values() for page in pages),
]
exclude_patterns = [".venv"]
root_doc = "docs/index"
html_theme = "furo"
html_static_path = ["accessible.js"]
html_js_files = [("accessible.js", {"defer": "defer"})]
html_copy_source = html_show_sourcelink = False
myst_heading_anchors = 4  # the same anchors as on GitHub
highlight_language = "none"  # for code blocks without a language
smartquotes = False


def add_contents(_: Sphinx, page: str, text: list[str]) -> None:
    """Add the site's table of contents to its first page. GitHub could not display it there."""
    if page == root_doc:
        for caption, pages in CONTENTS.items():
            text[0] += "\n".join(
                [
                    "",
                    "```{toctree}",
                    ":hidden:",
                    f":caption: {caption}",
                    *(f"/{p}" for p in pages),
                    "```",
                    "",
                ]
            )


def setup(app: Sphinx) -> None:
    """Register `add_contents`."""
    app.connect("source-read", add_contents)
