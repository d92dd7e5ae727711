"""What the plan beside a dataset says of it: how many shards it was to have, and of what corpus."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bltdata.config import fingerprint
from bltdata.engines.resume import plan_fingerprint
from bltdata.errors import RemoteError, ShardError
from bltdata.remote import AnyPath
from bltdata.shards.schema import PLAN_FILE


@dataclass(frozen=True)
class Planned:
    """What of a plan can be compared with a dataset.

    Attributes:
        name: what its shards call it.
        fragments: the numbers of its fragments, each of which has become a shard; None where it has none, as when shards without a
            plan were cut again.
        corpus: the fingerprint of what the manifest says of the corpus; None where the plan doesn't say.
    """

    name: str
    fragments: tuple[int, ...] | None
    corpus: str | None


def read_plan(folder: AnyPath) -> Planned | None:
    """Read `plan.json`; None where there is none: a dataset is whole without it.

    Raises:
        ShardError: it makes no sense, or its fragments are not those that it was made with.
        RemoteError: the store can't be asked.
    """
    try:
        plan = json.loads((folder / PLAN_FILE).read_bytes())
        identity = plan.get("identity", {})
        fragments = plan.get("fragments")
        planned = Planned(
            name=plan_fingerprint(plan),
            fragments=None if fragments is None else tuple(_number(fragment) for fragment in fragments),
            corpus=fingerprint(identity["corpus"]) if "corpus" in identity else None,
        )
        if fragments is not None and "fragments" in identity:
            _check_fragments(fragments, identity["fragments"])
    except FileNotFoundError:
        return None
    except RemoteError:
        # Not a fault of the dataset: nobody knows what there is.
        raise
    except OSError as error:
        raise ShardError(f"it can't be read ({error.strerror})") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ShardError("it is damaged or was changed") from error
    return planned


def _number(fragment: Mapping[str, Any]) -> int:
    number = fragment["index"]
    if type(number) is not int:
        raise TypeError(f"the number of a fragment is {number!r}")
    return number


def _check_fragments(fragments: list[Mapping[str, Any]], expected: str) -> None:
    if fingerprint([fragment["fingerprint"] for fragment in fragments]) != expected:
        raise ValueError("a fragment is missing or another one")
