"""The PostgreSQL wire protocol, executable: message formats as values, and small tools that interpret them.

`messages` is normative; everything else in this package is derived from it.  The package imports nothing from
`pgpooler`, and `pgpooler` imports nothing from here: tests import both and hold one against the other.
"""
