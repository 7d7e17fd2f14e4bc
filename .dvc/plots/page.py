"""Write page.html, the page of `dvc plots`, with vega inlined: without it the page would load vega from the network.

The page is in git, so that `dvc plots` works in any clone; run this after an upgrade of vl-convert-python.
"""

from pathlib import Path

from vl_convert import javascript_bundle

script = javascript_bundle().replace("</script", "<\\/script")
page = f'<!DOCTYPE html>\n<meta charset="utf-8">\n<title>dvc plots</title>\n<script>{script}</script>\n{{plot_divs}}\n'
Path(__file__).with_name("page.html").write_text(page)
