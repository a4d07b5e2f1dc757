"""In which scripts of the conformance suite PgPooler deviates, and why; docs/reference/conformance.md says the same.

In session mode nothing is intended: what stands there is a defect that is known.
"""

from __future__ import annotations

from collections.abc import Mapping

SEQUENCES_ARE_NOT_KEPT = (
    "nothing pins a client for what nextval did; the next transaction may have another server connection"
)
DEFAULTS_ARE_INVISIBLE = (
    "the limit of the reset `smart`: that an INSERT called nextval is in no text and no reply; `always` is the remedy"
)

WITHOUT_A_SESSION: Mapping[str, str] = {
    "state: the last value of a sequence": SEQUENCES_ARE_NOT_KEPT,
    "isolation: the end of a sequence": DEFAULTS_ARE_INVISIBLE,
}

INTENDED: Mapping[str, Mapping[str, str]] = {
    "session": {},
    "transaction": WITHOUT_A_SESSION,
    "statement": WITHOUT_A_SESSION,
}
"""For each pool mode, the scripts as `theme: name`, and the reason."""
