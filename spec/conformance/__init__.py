"""The conformance suite: scripts that any endpoint which speaks the protocol should answer as the manual says.

`themes` are tables of scripts (`scripts`); `stage` plays one over raw connections (`client`) whose every byte is judged
by `spec.judge`; `suite` plays all of them, `shrinking` finds the shortest script that shows a deviation, `report` puts
the results into words, and `command` is what is typed.
"""

from spec.conformance.command import add_arguments, run

__all__ = ["add_arguments", "run"]
