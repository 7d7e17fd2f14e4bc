"""Render the report: execute notebooks/report.ipynb on the small files in reports/, then one self-contained page."""

import logging
import os
import sys
from pathlib import Path

from pipeline.console import stage
from sagd.errors import InputError
from sagd.files import write_bytes


def main(params, options):
    render(Path("notebooks/report.ipynb"), Path("reports/index.html"), "sagd: the default study")


def render(source: Path, page: Path, title: str) -> None:
    """Execute a notebook; write it as executed beside the page, and the page."""
    # A kernel in a child process, spoken to through files: no port is opened.
    import nbformat
    import papermill
    from jupyter_client.manager import KernelManager

    KernelManager.transport.default_value = "ipc"
    logging.getLogger("papermill").setLevel(logging.WARNING)
    os.environ["PYTHONPATH"] = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
    try:
        notebook = papermill.execute_notebook(
            source, None, kernel_name="python3", progress_bar=sys.stderr.isatty(), record_timing=False, log_output=False
        )
    except papermill.PapermillExecutionError as error:
        raise InputError(f"{source}: cell {error.cell_index}: {error.ename}: {error.evalue}") from error
    _settle(notebook)
    write_bytes(page.parent / source.name, nbformat.writes(notebook).encode() + b"\n")
    write_bytes(page, _html(notebook, title).encode())
    print(f"The report is {page.absolute()}")


def _settle(notebook) -> None:
    """Drop what differs from run to run, so that the same results give the same bytes."""
    notebook.metadata.pop("papermill", None)
    notebook.metadata.get("language_info", {}).pop("version", None)
    for cell in notebook.cells:
        for key in ("papermill", "execution", "tags"):
            cell.metadata.pop(key, None)


def _html(notebook, title: str) -> str:
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        embed_images=True, exclude_input=True, require_js_url="", mathjax_url="", mermaid_js_url="", theme="light"
    )
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    page, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": title}})
    return page


if __name__ == "__main__":
    stage(main, each=None)
