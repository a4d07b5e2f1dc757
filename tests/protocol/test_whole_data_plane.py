"""The whole data plane between drawn clients and drawn servers, judged on both sides, every byte tagged with its owner.

The clients send the scripts of `spec.scripts`, as fast as they like; the servers answer with anything that the grammar
allows, step by step; chunks, partial writes, cancels, broken connections and the end of servers come whenever they
come.  Whatever happens: `spec.pooling` finds nothing wrong, limits hold, nobody on either side gets a byte that bears
the tag of another, and in the end everybody is answered and everything is back to base.
"""

from __future__ import annotations

from hypothesis import settings

from tests.whole_data_plane import WholeDataPlane, WholeStatementMode, WholeTransactionMode

TestSessionMode = WholeDataPlane.TestCase
TestTransactionMode = WholeTransactionMode.TestCase
TestStatementMode = WholeStatementMode.TestCase
TestSessionMode.settings = settings(deadline=None, stateful_step_count=25)
TestTransactionMode.settings = TestStatementMode.settings = TestSessionMode.settings
