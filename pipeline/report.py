"""Render the report: execute notebooks/report.ipynb on the small files in reports/, then write one page."""

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Any

from pipeline.params import Params
from pipeline.run.console import stage
from sagd.errors import InputError
from sagd.runtime.files import write_bytes

ROOT = Path(__file__).parents[1]


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
    from jupyter_client.manager import KernelManager

    KernelManager.transport.default_value = "ipc"  # sockets are files: no port is opened
    logging.getLogger("papermill").setLevel(logging.WARNING)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])  # of the kernel
    try:
        notebook = papermill.execute_notebook(
            source, None, kernel_name="python3", progress_bar=sys.stderr.isatty(), record_timing=False, log_output=False
        )
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
    """The page of an executed notebook, without its code; pictures are part of it, and nothing is fetched."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        embed_images=True, exclude_input=True, require_js_url="", mathjax_url="", mermaid_js_url="", theme="light"
    )
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    page, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": title}})
    return page


if __name__ == "__main__":
    stage(main, each=None)
