"""Verification: whether datasets are what their manifests say, and their rows what rows must be.

`verify_dataset` looks at everything and stops at nothing: what it finds are `Fault`s of a `VerificationReport`.
"""

from typing import TYPE_CHECKING

from bltdata.lazy import lazy_names

if TYPE_CHECKING:
    from bltdata.verification.report import DatasetReport, DeepReport, Fault, Note, VerificationReport
    from bltdata.verification.verify import DeepCheck, verify_dataset

__all__ = ["DatasetReport", "DeepCheck", "DeepReport", "Fault", "Note", "VerificationReport", "verify_dataset"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "DatasetReport": "bltdata.verification.report",
        "DeepCheck": "bltdata.verification.verify",
        "DeepReport": "bltdata.verification.report",
        "Fault": "bltdata.verification.report",
        "Note": "bltdata.verification.report",
        "VerificationReport": "bltdata.verification.report",
        "verify_dataset": "bltdata.verification.verify",
    },
)
