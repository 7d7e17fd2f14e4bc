"""Render the report: execute notebooks/report.ipynb on the small files in reports/, then write one page."""

import argparse
import logging
import os
import sys
from html import escape
from pathlib import Path
from typing import Any

from pipeline.params import Params
from pipeline.run.console import stage
from sagd.errors import InputError
from sagd.runtime.files import write_bytes

ROOT = Path(__file__).parents[1]
STYLE = Path(__file__).parent / "pages" / "page.css"
# The policy lets the browser load nothing but what is in the page, and run nothing.
SHELL = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def main(params: Params, options: argparse.Namespace) -> None:
    render(
        source=Path("notebooks/report.ipynb"),
        page=Path("reports/index.html"),
        title="sagd: the default study",
        executed=Path("artifacts/report/report.ipynb"),
    )


def render(source: Path, page: Path, title: str, executed: Path) -> None:
    """Execute a notebook in the working directory; write it as executed, and the page, which needs no other file."""
    import nbformat
    import papermill
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpecManager

    class Here(AsyncKernelManager):
        """A kernel of this interpreter, whichever are installed; its sockets are files, so no port is opened."""

        def __init__(self, **options: Any):
            super().__init__(transport="ipc", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]), **options)

    logging.getLogger("papermill").setLevel(logging.WARNING)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])  # of the kernel
    try:
        notebook = papermill.execute_notebook(
            source, None, kernel_name="python3", kernel_manager_class=Here,
            shutdown_kernel="immediate",  # not by an interrupt, which the kernel would print
            progress_bar=sys.stderr.isatty(), record_timing=False, log_output=False,
        )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        raise InputError(f"{source}: cell {error.cell_index}: {error.ename}: {error.evalue}") from error
    settle(notebook)
    write_bytes(executed, nbformat.writes(notebook).encode() + b"\n")
    write_bytes(page, html(notebook, title).encode())
    print(f"The report is {page.absolute()}")


def settle(notebook: Any) -> None:
    """Drop what differs from run to run, so that the same results give the same bytes."""
    notebook.metadata.pop("papermill", None)
    notebook.metadata.get("language_info", {}).pop("version", None)
    for cell in notebook.cells:
        for key in ("papermill", "execution", "tags"):
            cell.metadata.pop(key, None)


def html(notebook: Any, title: str) -> str:
    """The page of an executed notebook, without its code; all is part of it, and the browser fetches nothing."""
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    markdown = MarkdownWithMath(IPythonRenderer(escape=True, allow_harmful_protocols=False))
    exporter = HTMLExporter(template_name="basic", exclude_input=True, filters={"markdown2html": markdown.render})
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    body, _ = exporter.from_notebook_node(notebook)
    return SHELL.format(title=escape(title), style=STYLE.read_text(), body=body)


if __name__ == "__main__":
    stage(main, each=None)
