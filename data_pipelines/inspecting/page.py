"""What is in data sets, as one page: histograms of all columns, contact sheets by their quantiles, near duplicates."""

from __future__ import annotations

import numpy as np
from PIL import Image

from data_pipelines.inspecting.contact_sheet import contact_sheet, encoded, pairs_sheet
from data_pipelines.inspecting.histograms import histograms
from data_pipelines.inspecting.pairs import read_pairs
from data_pipelines.reading.mixture import Mixture
from data_pipelines.reading.store import Dataset
from vdit.render import charts, pages

CLIPS = 6
"""Of each contact sheet."""


def page(data: Dataset | Mixture, split: str, condition: str, keeps_N: np.ndarray | None) -> str:
    """HTML that fetches nothing.

    Args:
      data, split: what is shown.
      condition: of the filter, for the text.
      keeps_N: which examples it keeps; None = there is no filter.
    """
    index = data.index(split)
    lead = [f"{pages.code(data.path)}, split {pages.code(split)}: {len(index)} examples."]
    drawn = pages.data_uri(charts.png(histograms(index, keeps_N)), "image/png")
    sections = [pages.Section("columns", "Columns", [pages.Picture(drawn, "histograms")])]
    if keeps_N is not None:
        lead.append(f"The filter {pages.code(condition)} keeps {keeps_N.sum()} of them.")
        blocks = [
            _sheet(data, split, name, "", which_N)
            for name, which_N in (("kept", keeps_N), ("left out", ~keeps_N))
            if which_N.any()
        ]
        sections.append(pages.Section("filter", "What the filter keeps and leaves out", blocks))
    varied = [name for name, values_N in index.columns().items() if len(np.unique(values_N[~np.isnan(values_N)])) > 1]
    blocks = [_sheet(data, split, f"by {name}", name, keeps_N) for name in varied]
    sections.append(pages.Section("quantiles", "Clips at quantiles of each column", blocks))
    if any(read_pairs(dataset.path) for dataset in data.datasets):
        pairs = pages.Picture(_source(pairs_sheet(data)), "pairs", "near duplicates, from the most alike on")
        sections.append(pages.Section("duplicates", "Near duplicates", [pairs]))
    return pages.html(pages.Page("Data sets", lead, sections, kicker="inspection"))


def _sheet(data: Dataset | Mixture, split: str, title: str, by: str, keeps_N: np.ndarray | None) -> pages.Picture:
    return pages.Picture(_source(contact_sheet(data, split, CLIPS, by, keeps_N)), title, title)


def _source(picture: Image.Image) -> str:
    return pages.data_uri(encoded(picture, "WEBP"), "image/webp")
