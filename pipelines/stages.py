"""Stages that are done once: each has a key made of all that it depends on, and is skipped while the key stays the same.

A stage's record, `stages/NAME.json` in the run's folder, says for which key it was begun and whether it was finished. A
stage that was begun for the same key goes on where it stopped; one whose key has changed starts anew, its outputs deleted.
"""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bltdata.atomic import write_json
from bltdata.config import fingerprint


@dataclass
class StageRunner:
    """Runs the stages of one recipe in `folder`.

    Attributes:
        folder: holds the outputs of all stages, and their records.
        say: tells the user a sentence.
        results: stage -> what it returned, of the stages that were run or skipped.
    """

    folder: Path
    say: Callable[[str], None]
    results: dict[str, Any] = field(default_factory=dict)
    _keys: dict[str, str] = field(default_factory=dict)

    def run(self, name: str, depends_on: Any, after: tuple[str, ...], outputs: tuple[str, ...], work: Callable[[], Any]) -> Any:
        """Run a stage, or skip it.

        Args:
            name: what it is called.
            depends_on: the settings and inputs that fix its outputs, as JSON can hold them.
            after: stages whose outputs it reads.
            outputs: files and folders that it makes, below `folder`.
            work: does it, and returns what JSON can hold.

        Returns:
            What `work` returned, now or when it was done.
        """
        key = fingerprint([name, depends_on, [self._keys[stage] for stage in after]])
        self._keys[name] = key
        path = self.folder / "stages" / f"{name}.json"
        record = _read(path)
        if record.get("key") == key and record.get("finished") and all((self.folder / output).exists() for output in outputs):
            self.say(f"{name}: nothing has changed, skipped.")
        else:
            record = self._work(name, key, path, record, outputs, work)
        self.results[name] = record["result"]
        return record["result"]

    def _work(
        self, name: str, key: str, path: Path, before: dict[str, Any], outputs: tuple[str, ...], work: Callable[[], Any]
    ) -> dict[str, Any]:
        if before.get("key") != key:
            for output in outputs:
                _remove(self.folder / output)
        self.say(f"{name}: in {', '.join(str(self.folder / output) for output in outputs)}.")
        write_json(path, {"key": key, "finished": False})
        started = time.monotonic()
        result = work()
        record = {"key": key, "finished": True, "seconds": time.monotonic() - started, "result": result}
        write_json(path, record)
        self.say(f"{name}: done in {record['seconds']:.0f} s.")
        return record


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        # Without a whole record nothing is known to be done, and doing it again is always right.
        return {}
    return record if isinstance(record, dict) else {}


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
