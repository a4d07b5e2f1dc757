"""All scripts by theme."""

from tests.integration.differential.themes.asides import ASIDES
from tests.integration.differential.themes.copying import COPYING
from tests.integration.differential.themes.cursors import CURSORS
from tests.integration.differential.themes.errors import ERRORS
from tests.integration.differential.themes.pipelines import SERIES
from tests.integration.differential.themes.plans import PLANS
from tests.integration.differential.themes.scopes import SCOPES_OF_SETTINGS
from tests.integration.differential.themes.settings import SETTINGS
from tests.integration.differential.themes.statements import STATEMENTS
from tests.integration.differential.themes.transactions import TRANSACTIONS
from tests.integration.differential.themes.values import VALUES

THEMES = {
    "values": VALUES,
    "errors": ERRORS,
    "COPY": COPYING,
    "cursors": CURSORS,
    "settings": SETTINGS,
    "scopes": SCOPES_OF_SETTINGS,
    "transactions": TRANSACTIONS,
    "statements": STATEMENTS,
    "plans": PLANS,
    "pipelines": SERIES,
    "asides": ASIDES,
}
"""No two scripts of a theme have the same name."""
