"""In which scripts of the conformance suite PgPooler deviates, and why; docs/reference/conformance.md says the same.

In session mode nothing is intended: what stands there is a defect that is known.
"""

from __future__ import annotations

from collections.abc import Mapping

SET_IS_NOT_KEPT = (
    "SET holds for the transaction: a setting that outlives it is not carried to the next server connection"
)
STATEMENTS_ARE_NOT_KEPT = "prepared statements of the protocol do not outlive the transaction"
RESET_GOES_TOO_FAR = (
    "known defect: RESET and DISCARD ALL return to the server connection's own value, and what the client asked for "
    "at its start is not set again until the next lease"
)
SEQUENCES_ARE_NOT_KEPT = (
    "nothing pins a client for what nextval did; the next transaction may have another server connection"
)
DEFAULTS_ARE_INVISIBLE = (
    "the limit of the reset `smart`: that an INSERT called nextval is in no text and no reply; `always` is the remedy"
)

WITHOUT_A_SESSION: Mapping[str, str] = {
    "state: a setting": SET_IS_NOT_KEPT,
    "state: a setting, in series": SET_IS_NOT_KEPT,
    "state: a setting that is reported": SET_IS_NOT_KEPT,
    "state: a setting made by set_config": SET_IS_NOT_KEPT,
    "state: a setting of a program's own": SET_IS_NOT_KEPT,
    "state: the client's encoding": SET_IS_NOT_KEPT,
    "state: the characteristics of the transactions to come": SET_IS_NOT_KEPT,
    "state: a role": SET_IS_NOT_KEPT,
    "state: a prepared statement": STATEMENTS_ARE_NOT_KEPT,
    "state: the unnamed statement": STATEMENTS_ARE_NOT_KEPT,
    "state: the last value of a sequence": SEQUENCES_ARE_NOT_KEPT,
    "isolation: the end of a sequence": DEFAULTS_ARE_INVISIBLE,
}

INTENDED: Mapping[str, Mapping[str, str]] = {
    "session": {
        "state: the value of the start, after RESET": RESET_GOES_TOO_FAR,
        "state: the value of the start, after DISCARD ALL": RESET_GOES_TOO_FAR,
    },
    "transaction": WITHOUT_A_SESSION,
    "statement": WITHOUT_A_SESSION,
}
"""For each pool mode, the scripts as `theme: name`, and the reason."""
