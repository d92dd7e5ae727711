"""One dataset: its manifest, its folder, and what its shards must agree on."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bltdata.config import fingerprint, to_mapping
from bltdata.errors import ConfigError, ShardError
from bltdata.patching.sources import SourceRules
from bltdata.remote import AnyPath
from bltdata.shards.checks import has_nll
from bltdata.shards.folder import is_lock, maker_of, run_again
from bltdata.shards.footer import read_footer
from bltdata.shards.manifest import Manifest, Totals
from bltdata.shards.schema import DOC_ID, MANIFEST_NAME, PLAN_FILE, shard_name
from bltdata.verification.documents import DocumentIndex, repeats
from bltdata.verification.plans import read_plan
from bltdata.verification.report import DatasetReport, Fault, FaultLog, Note
from bltdata.verification.rows import text_values
from bltdata.verification.shard import ShardFindings, ShardJob, read_columns


class DatasetCheck:
    """Everything about a dataset that isn't inside of one shard.

    Args:
        folder: where it is.
        max_faults: how many of a kind to keep.
    """

    def __init__(self, folder: AnyPath, max_faults: int) -> None:
        self.folder = folder
        self.log = FaultLog(max_faults)
        self.notes: list[Note] = []
        self.manifest: Manifest | None = None
        """None where there is none that makes sense."""
        self._max_faults = max_faults
        self._findings: list[ShardFindings] = []
        try:
            self.manifest = Manifest.parse(folder)
        except ShardError as error:
            self._fault_of_manifest(str(error))
            return
        self._run_again = run_again(folder, self.manifest.corpus)
        is_converted = maker_of(folder, self.manifest.corpus) == "convert"
        self._other_ids = (
            "convert the files anew with --doc-ids row" if is_converted else "build anew with another column as '#id=', or none"
        )
        self._restore = f"restore the file, or delete the folder and {self._run_again}"
        self.index = DocumentIndex(len(self.manifest.shards))
        self._findings = [ShardFindings()] * len(self.manifest.shards)
        self._check_manifest(self.manifest)
        self._check_folder(self.manifest)

    def jobs(self) -> list[tuple[int, ShardJob]]:
        """Index and job of the shards to check: those that have a name of their own in the folder, each once."""
        if self.manifest is None:
            return []
        rules = self._rules(self.manifest)
        settings: dict[str, Any] = {"folder": self.folder, "rules": rules, "precision": self.manifest.entropy_precision}
        settings["run_again"] = self._run_again
        settings["is_scored"] = has_nll(self.manifest.entropy_model)
        misnamed = set(self.manifest.misnamed)
        first = {record.file: shard for shard, record in reversed(list(enumerate(self.manifest.shards)))}
        return [
            (shard, ShardJob(**settings, record=record, max_faults=self._max_faults))
            for shard, record in enumerate(self.manifest.shards)
            if first[record.file] == shard and (record.file not in misnamed or Path(record.file).name == record.file)
        ]

    def set_findings(self, shard: int, findings: ShardFindings) -> None:
        """Take what was found in a shard."""
        self._findings[shard] = findings
        self.index.set_shard(shard, findings.names, findings.contents, findings.spans)

    def finish(self) -> None:
        """Check what needs all shards."""
        if self.manifest is None:
            return
        for findings in self._findings:
            self.log.merge(findings.faults, findings.num_faults)
        own = [shard for shard in range(len(self._findings)) if self._findings[shard].footer is not None and not self._is_foreign(shard)]
        self._check_order(own, self.manifest, self._planned(self.manifest))
        self._check_names()
        repeated, _ = repeats(self.index.contents)
        if len(repeated):
            self.notes.append(self._note(f"{len(repeated):,} of its {len(self.index):,} documents have the same bytes as an earlier one."))

    def report(self) -> DatasetReport:
        """What was looked at."""
        return DatasetReport(
            folder=str(self.folder),
            fingerprint=self.manifest.fingerprint if self.manifest else None,
            num_shards=len(self._findings),
            num_readable=sum(findings.footer is not None for findings in self._findings),
            num_documents=sum(span.num_rows for findings in self._findings for span in findings.spans),
            num_bytes=sum(findings.num_bytes for findings in self._findings),
        )

    def sound(self) -> DocumentIndex:
        """The documents of shards without any fault."""
        index = DocumentIndex(len(self._findings))
        for shard, findings in enumerate(self._findings):
            if findings.is_readable and not findings.num_faults:
                index.set_shard(shard, findings.names, findings.contents, findings.spans)
        return index

    def place(self, position: int) -> dict[str, Any]:
        """The fields of a fault that say where the document at a position of `index` is."""
        assert self.manifest is not None, "a dataset with documents has a manifest"
        shard, row_group, row = self.index.place(position)
        file, findings = self.manifest.shards[shard].file, self._findings[shard]
        name = None
        if findings.is_readable:
            first_row = next(span.first_row for span in findings.spans if span.row_group == row_group)
            name = _name_of(self.folder / file, row_group, row - first_row)
        return {"file": file, "row_group": row_group, "row": row, "doc_id": name}

    def fault(self, kind: str, message: str, **place: Any) -> Fault:
        """A fault of this dataset."""
        return Fault(kind=kind, folder=str(self.folder), message=message, **place)

    def _fault(self, kind: str, message: str, **place: Any) -> None:
        self.log.add(self.fault(kind, message, **place))

    def _fault_of_manifest(self, sentence: str) -> None:
        """The fault that there is no manifest which can be read; a line says its place, so the sentence need not say it once more."""
        of_file, of_folder = (f"{place} " for place in (self.folder / MANIFEST_NAME, self.folder))
        if sentence.startswith(of_folder):
            self._fault("manifest", f"it {sentence.removeprefix(of_folder)}")
        elif sentence.startswith(of_file):
            self._fault("manifest", f"it {sentence.removeprefix(of_file)}", file=MANIFEST_NAME)
        elif (self.folder / MANIFEST_NAME).exists():
            self._fault("manifest", sentence, file=MANIFEST_NAME)
        else:
            self._fault("manifest", f"{sentence[0].lower()}{sentence[1:]}".replace(f"no folder {self.folder}", "no such folder"))

    def _note(self, message: str) -> Note:
        return Note(folder=str(self.folder), message=message)

    def _check_manifest(self, manifest: Manifest) -> None:
        for file in manifest.misnamed:
            self._fault(
                "manifest_entry",
                f"it lists the shard {file!r}, which is no name of its own in this folder; {self._restore}.",
                file=MANIFEST_NAME,
            )
        for file in manifest.impossible:
            self._fault(
                "manifest_entry", f"it lists the shard {file!r} with a count that no file can have; {self._restore}.", file=MANIFEST_NAME
            )
        totals = Totals.of(manifest.shards)
        if manifest.totals != totals:
            wrong = [name for name, value in to_mapping(totals).items() if to_mapping(manifest.totals)[name] != value]
            self._fault(
                "manifest_totals",
                f"its totals of {', '.join(wrong)} are not the sums over its shards; {self._restore}.",
                file=MANIFEST_NAME,
            )
        if manifest.fingerprint != manifest.expected_fingerprint:
            message = f"its fingerprint is {manifest.fingerprint!r}, and what it lists has {manifest.expected_fingerprint!r}"
            self._fault("manifest_fingerprint", f"{message}: it was changed after it was written; {self._restore}.", file=MANIFEST_NAME)

    def _rules(self, manifest: Manifest) -> SourceRules | None:
        try:
            return SourceRules.from_mapping(to_mapping(manifest), "it")
        except ConfigError as error:
            self._fault("manifest_rule", f"its patch rule can't be used, so patches are not checked: {error}", file=MANIFEST_NAME)
            return None

    def _check_folder(self, manifest: Manifest) -> None:
        listed = {shard.file for shard in manifest.shards}
        others = []
        for path in sorted(self._entries(), key=lambda path: path.name):
            if path.name in listed or path.name in (MANIFEST_NAME, PLAN_FILE) or is_lock(path.name):
                continue
            if path.suffix == ".parquet":
                message = "the manifest doesn't list this file, and a query over *.parquet would read it; delete it or move it away."
                self._fault("unlisted_file", message, file=path.name)
            else:
                others.append(path.name)
        if others:
            shown = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
            self.notes.append(self._note(f"{len(others)} other entries of the folder are no part of the dataset: {shown}."))

    def _entries(self) -> Iterator[AnyPath]:
        yield from self.folder.iterdir()

    def _is_foreign(self, shard: int) -> bool:
        """Whether a shard says that something else made it; then that is a fault."""
        assert self.manifest is not None, "there are shards"
        footer = self._findings[shard].footer
        assert footer is not None, "its footer was read"
        said, listed = {"source_rules": {}, **footer.metadata}, to_mapping(self.manifest)
        differences = [
            name.replace("_", " ")
            for name in ("entropy_model", "patch_rule", "source_rules", "entropy_precision")
            if said.get(name) != listed[name]
        ]
        differences += [name for name in ("plan", "corpus") if fingerprint(said.get(name)) != self._usual(name)]
        if differences:
            message = (
                f"its footer names another {', another '.join(differences)} than the rest of the dataset, so it belongs to another one"
            )
            self._fault(
                "another_dataset",
                f"{message}; put the right file back, or delete the file and {self._run_again}.",
                file=self.manifest.shards[shard].file,
            )
        return bool(differences)

    def _usual(self, name: str) -> str:
        """What most shards say, as a fingerprint; the first of them where no more say this than that."""
        footers = [findings.footer for findings in self._findings]
        said = Counter(fingerprint(footer.metadata.get(name)) for footer in footers if footer is not None)
        return said.most_common(1)[0][0]

    def _planned(self, manifest: Manifest) -> tuple[int, ...] | None:
        """The fragments of the plan that lies beside the shards and is theirs, if there is one."""
        try:
            plan = read_plan(self.folder)
        except ShardError as error:
            self._fault("plan", f"{error}, so it can't tell whether all shards are there; {self._restore}.", file=PLAN_FILE)
            return None
        if plan is None:
            return None
        is_told = any(findings.footer is not None for findings in self._findings)
        if is_told and self._usual("plan") != fingerprint(plan.name):
            self._fault("plan", f"it isn't the plan that the shards were made by; {self._restore}.", file=PLAN_FILE)
            return None
        if plan.corpus not in (None, fingerprint(manifest.corpus)):
            self._fault("plan", f"it was made for another corpus than {MANIFEST_NAME} names; {self._restore}.", file=PLAN_FILE)
        return plan.fragments

    def _check_order(self, shards: Sequence[int], manifest: Manifest, planned: Sequence[int] | None) -> None:
        """The shards stand in the order of the plan, and none is left out; without the plan nobody can tell whether the last one is."""
        files = {shard.file for shard in manifest.shards}
        fragments = [(shard, fragment) for shard, fragment in self._fragments(shards) if isinstance(fragment, int)]
        highest = -1
        for shard, fragment in fragments:
            if fragment <= highest:
                message = f"it was made of fragment {fragment} of the plan, and stands after that of fragment {highest}; {self._restore}."
                self._fault("order", f"{manifest.shards[shard].file}: {message}", file=MANIFEST_NAME)
            highest = max(highest, fragment)
        known = {fragment for _, fragment in fragments}
        for fragment in range(min(highest, len(known) + len(files) + 1)) if planned is None else planned:
            if fragment not in known and shard_name(fragment) not in files:
                message = f"no shard of fragment {fragment} of the plan is listed; {self._run_again}."
                self._fault("missing_fragment", message, file=MANIFEST_NAME)

    def _fragments(self, shards: Sequence[int]) -> Iterator[tuple[int, Any]]:
        for shard in shards:
            footer = self._findings[shard].footer
            yield shard, footer.metadata.get("fragment") if footer is not None else None

    def _check_names(self) -> None:
        positions, firsts = repeats(self.index.names)
        for number, (position, first) in enumerate(zip(positions.tolist(), firsts.tolist(), strict=True)):
            if not self.log.has_room("doc_id_twice"):
                self.log.count("doc_id_twice", len(positions) - number)
                return
            other = self.place(first)
            message = f"{other['file']}, row {other['row']} has the same doc_id, and each must be unique; {self._other_ids}."
            self._fault("doc_id_twice", message, **self.place(position))


def _name_of(path: AnyPath, row_group: int, row: int) -> str | None:
    try:
        return text_values(read_columns(path, read_footer(path)[1], row_group, [DOC_ID])[DOC_ID])[row]
    except ShardError:
        # It could be read a moment ago; the fault is told without a name.
        return None
