"""The scripts, in themes."""

from spec.conformance.themes import (
    asynchronous,
    authentication,
    canceling,
    copying,
    ending,
    extended,
    functions,
    isolation,
    large,
    malformed,
    pipelines,
    replication,
    simple,
    startup,
    state,
    transactions,
)

THEMES = {
    module.THEME.name: module.THEME
    for module in (
        startup,
        authentication,
        simple,
        extended,
        pipelines,
        copying,
        functions,
        transactions,
        asynchronous,
        canceling,
        large,
        malformed,
        ending,
        state,
        isolation,
        replication,
    )
}
"""By their names, in the order in which they are played."""
