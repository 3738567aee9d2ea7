"""Buttons that open a chapter on Binder and Colab, where the address of the repository is known.

The address is the environment variable CRYOSTUDY_REPOSITORY or `repository.url` in `_config.yml`; without it the site
has no such buttons. They lead to `notebooks/`, the chapters that a reader runs, not to the executed copies. `setup`
makes this file the Sphinx extension that says so to the theme.
"""

from __future__ import annotations

import os
import re
from typing import Any

from cryostudy.errors import InputError

VARIABLE = "CRYOSTUDY_REPOSITORY"
BRANCH = "main"
PAGES, SOURCES = "book/chapters/", "notebooks/"
IN_THE_BROWSER = """
## In the browser

The rocket at the top of each chapter opens its notebook on [Binder](https://mybinder.org), which sets everything up
from `environment.yml` (some minutes the first time, two slow cores), or on [Colab](https://colab.research.google.com),
which has GPUs but opens the notebook alone. There, run this in a new cell at the top, then restart the session:

```bash
!git clone --depth 1 {url} cryostudy
!pip install --quiet --editable cryostudy
```
"""


def address(config: dict[str, Any]) -> str:
    """The address of the repository, without a slash at its end; "" where it is not known.

    Raises:
        InputError: it is no web address of an owner and a name.
    """
    configured = (config.get("repository") or {}).get("url") or ""
    url = (os.environ.get(VARIABLE) or configured).rstrip("/").removesuffix(".git")
    if url and not re.fullmatch(r"https://[^/\s]+/[^/\s]+/[^/\s]+", url):
        raise InputError(f"{VARIABLE}: {url} is no address of a repository; write https://github.com/OWNER/NAME")
    return url


def configured(config: dict[str, Any], url: str) -> dict[str, Any]:
    """`config` of Jupyter Book with the buttons of the repository at `url`."""
    github = url.startswith("https://github.com/")
    launch = {"notebook_interface": "jupyterlab", "binderhub_url": "https://mybinder.org"}
    launch |= {"colab_url": "https://colab.research.google.com"} if github else {}
    html = {**config.get("html", {}), "use_repository_button": True, "use_issues_button": github}
    return {**config, "repository": {"url": url, "branch": BRANCH}, "launch_buttons": launch, "html": html}


def _to_source(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    for group in context.get("header_buttons", []):
        for button in group.get("buttons", []) if group.get("label") == "launch-buttons" else []:
            button["url"] = button["url"].replace(PAGES, SOURCES)


def setup(app: Any) -> dict[str, bool]:
    app.connect("html-page-context", _to_source, priority=900)  # after the theme's
    return {"parallel_read_safe": True, "parallel_write_safe": True}
