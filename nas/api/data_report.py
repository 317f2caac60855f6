"""A data set as one HTML page: what it holds, what was found, and what is planned for it."""

from __future__ import annotations

import base64
import html
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from torchvision.transforms.v2 import functional

from nas.config.spec import load_spec
from nas.data.coco import CocoSplit
from nas.data.validation import CheckedSplit
from nas.evaluation.data_charts import charts
from nas.evaluation.visualization import draw_truth, sample
from nas.planning.adaptation import plan_of
from nas.planning.plan import Plan
from nas.utils.html_table import html_table
from nas.utils.shown_text import whole

SAMPLES = 12  # images shown of a split
SHOWN_SIDE = 420  # pixels
STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top }
tr { border-bottom: 1px solid #8884 }
img { max-width: 100% }
.samples img { max-width: 32%; margin: .3% }
.charts { background: white; border-radius: .5rem }
.warning { color: #b35900 }
"""


def data_report(data: str, checked: Sequence[CheckedSplit]) -> str:
    """Describe checked splits on a page that opens without a server.

    Args:
        data: name of the data set, for the title.
        checked: its splits, the one to train on first; without a box that can be used there is no
            plan.
    """
    train = checked[0].split
    plan = plan_of(load_spec(None, {"data.root": data}), train) if train.boxes else None
    title = html.escape(Path(data).name or data)
    page = "\n".join(
        [
            f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>",
            f"<style>{STYLE}</style><h1>{title}</h1>",
            html_table(
                ["split", "read from", "images", "boxes", "classes"], map(_split_row, checked)
            ),
            "<h2>What was found</h2>" + _findings(checked),
            f"<h2>Sizes and numbers of {html.escape(checked[0].name)}</h2>" + _charts(train),
            *(f"<h2>Images of {html.escape(each.name)}</h2>" + _samples(each) for each in checked),
            *(["<h2>The plan for it</h2>" + _plan(plan)] if plan else []),
        ]
    )
    return whole(page)


def _split_row(checked: CheckedSplit) -> list[str]:
    split = checked.split
    counts = len(split.images), len(split.boxes), len(split.categories)
    return [checked.name, str(checked.source), *(f"{count:,}" for count in counts)]


def _findings(checked: Sequence[CheckedSplit]) -> str:
    """A row for each kind of each split, with one example."""
    rows = []
    for each in checked:
        kinds = Counter((issue.done, issue.kind) for issue in each.problems)
        for (done, kind), count in kinds.items():
            first = next(issue for issue in each.problems if issue.kind == kind)
            rows.append([each.name, str(count), kind, done, f"{first.where}: {first.detail}"])
    header = ["split", "number", "kind", "what is done", "for example"]
    return html_table(header, rows) if rows else "<p>Nothing.</p>"


def _charts(split: CocoSplit) -> str:
    return f'<img class=charts alt="charts of the split" src="{_inline(charts(split), "png")}">'


def _samples(checked: CheckedSplit) -> str:
    pictures = []
    for name, pixels in draw_truth(sample(checked.split, SAMPLES)):
        picture = functional.to_pil_image(pixels)
        picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
        written = io.BytesIO()
        picture.save(written, format="JPEG", quality=85)
        said = html.escape(name, quote=True)
        pictures.append(
            f'<img alt="{said}" title="{said}" src="{_inline(written.getvalue(), "jpeg")}">'
        )
    return f"<div class=samples>{''.join(pictures)}</div>"


def _plan(plan: Plan) -> str:
    rows = [[decision.key, str(decision.value), decision.reason] for decision in plan.decisions]
    warnings = [f"<p class=warning>{html.escape(each)}.</p>" for each in plan.warnings]
    return "".join(warnings) + html_table(["key", "value", "why"], rows)


def _inline(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(content).decode()
