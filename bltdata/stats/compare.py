"""Several datasets side by side: other rules, thresholds or entropy models on the same documents, or other documents."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bltdata.patching.display import printable_line
from bltdata.patching.settings import describe_rule
from bltdata.shards import Manifest
from bltdata.stats.plots import LONGEST_BAR, blank_axes
from bltdata.stats.sections import Section, number, percent
from bltdata.stats.sources import DatasetStatistics

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def compare_mapping(names: Sequence[str], manifests: Sequence[Manifest], statistics: Sequence[DatasetStatistics]) -> list[dict[str, Any]]:
    """What differs between datasets, as plain values.

    Args:
        names: what each is called, such as its folder.
        manifests: of each.
        statistics: of each, from `collect_statistics`.

    Returns:
        For each dataset its rule, its counts, and what a byte costs: patches for the model on patches, bits for the entropy model.
    """
    found = []
    for name, manifest, counted in zip(names, manifests, statistics, strict=True):
        overall = counted.overall()
        lengths, entropy = overall.patch_lengths.summary(), overall.entropy.summary()
        found.append(
            {
                "dataset": name,
                "rule": describe_rules(manifest, counted.by_source),
                "entropy_model": manifest.entropy_model.get("fingerprint"),
                "documents": overall.num_documents,
                "total_bytes": overall.num_bytes,
                "mean_patch_length": overall.mean_patch_length,
                "std_patch_length": lengths.std,
                "p95_patch_length": lengths.quantile(0.95),
                "patches_per_byte": overall.num_patches / overall.num_bytes if overall.num_bytes else None,
                "share_of_most_common_patch_length": None if lengths.most_common is None else lengths.share_of(lengths.most_common),
                "mean_entropy_nats": entropy.mean,
                "entropy_model_bits_per_byte": overall.bits_per_byte,
                "mean_patch_length_by_source": {source: each.mean_patch_length for source, each in sorted(counted.by_source.items())},
            }
        )
    return found


def describe_rules(manifest: Manifest, sources: Collection[str]) -> str:
    """The rule of a dataset in a line, and for how many of its sources there are others; where no source has it, those that they have."""
    own = [manifest.source_rules[source] for source in sources if source in manifest.source_rules]
    if own and len(own) == len(sources):
        return printable_line(f"{describe_rule(_joined(own))}, by source")
    others = f"; others for {len(own)} of the {len(sources)} sources" if own else ""
    return printable_line(describe_rule(manifest.patch_rule) + others)


def _joined(rules: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several rules as one, in which a setting that they don't share has the range of its values, or all of them."""
    names = dict.fromkeys(name for rule in rules for name in rule)
    values = {name: list(dict.fromkeys(rule.get(name) for rule in rules)) for name in names}
    return {name: found[0] if len(found) == 1 else _told(found) for name, found in values.items()}


def _told(values: list[Any]) -> str:
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return f"{min(values)} to {max(values)}"
    return " or ".join("none" if value is None else str(value) for value in values)


def compare_sections(found: Sequence[dict[str, Any]]) -> list[Section]:
    """The comparison as tables: what each dataset is and costs, and the mean patch length of each source in each."""
    columns = (
        ("documents", lambda each: number(each["documents"])),
        ("bytes", lambda each: number(each["total_bytes"])),
        ("bytes per\npatch", lambda each: number(each["mean_patch_length"])),
        ("std", lambda each: number(each["std_patch_length"])),
        ("p95", lambda each: number(each["p95_patch_length"])),
        ("most\ncommon", lambda each: percent(each["share_of_most_common_patch_length"])),
        ("entropy,\nnats", lambda each: number(each["mean_entropy_nats"])),
        ("entropy model,\nbits per byte", lambda each: number(each["entropy_model_bits_per_byte"])),
        ("rule", lambda each: each["rule"]),
    )
    rows = [(printable_line(each["dataset"]), *(cell(each) for _, cell in columns)) for each in found]
    headings = ("dataset", *(heading for heading, _ in columns))
    datasets = Section(title="Datasets", headings=headings, rows=rows, texts=("rule",), is_brief=True)
    sources = sorted(set().union(*(each["mean_patch_length_by_source"] for each in found)))
    lengths = [(printable_line(name), *(number(each["mean_patch_length_by_source"].get(name)) for each in found)) for name in sources]
    headings = ("source", *(printable_line(each["dataset"]) for each in found))
    return [datasets, Section(title="Bytes per patch, by source", headings=headings, rows=lengths, is_brief=True)]


def compare_figure(names: Sequence[str], statistics: Sequence[DatasetStatistics]) -> "Figure":
    """How much of each dataset lies in patches up to each length: the steeper, the more alike they are."""
    figure, axes = blank_axes("What lies in patches up to a length", "bytes in the patch", "positions, %")
    for name, counted in zip(names, statistics, strict=True):
        lengths = counted.overall().patch_lengths.summary()
        if lengths.total:
            positions = np.cumsum(lengths.values * lengths.counts)
            shares = np.concatenate([[0.0], positions / positions[-1] * 100])
            label = printable_line(name).encode("ascii", "backslashreplace").decode().replace("$", r"\$")
            axes.step(np.concatenate([[0], lengths.values]), shares, where="post", linewidth=1.6, label=label.lstrip("_"))
    axes.set_xlim(0, LONGEST_BAR)
    axes.set_ylim(0, 100)
    figure.legend(loc="outside lower right", frameon=False)
    return figure
