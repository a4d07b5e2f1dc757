"""What statements leave in a session: the bits of evidence, and the tables of commands, tags and functions.

Bits are plain numbers: they are combined once or more per query.
"""

from __future__ import annotations

CLEANING = 1  # something that the reset query undoes, or doubt
TEMPORARY = 2
LISTENING = 4
ADVISORY_LOCK = 8
HELD_CURSOR = 16
PREPARED = 32  # by the statement PREPARE, not by the message Parse
RELEASING = 64  # may end one of those
UNREAD = 128  # too long or not understood: nobody knows what it leaves, and the server must be asked
LOADED = 256  # no reset undoes it
SETTINGS = 512  # settings of the session may have changed: the server is asked which (`parameters`)
RESTORING = 1024  # a setting may have gone back to the server connection's own value, which need not be the client's
FOR_THE_TRANSACTION = 2048  # settings change and come back with its end
STATEMENTS = 4096  # speaks of prepared statements by their names
READS_DATA = 8192  # begins a COPY from the client, which leaves nothing, but what follows has to wait

PINNING = TEMPORARY | LISTENING | ADVISORY_LOCK | HELD_CURSOR | PREPARED
"""What keeps a client on its server connection."""

NAMES = {
    TEMPORARY: "temporary objects",
    LISTENING: "LISTEN",
    ADVISORY_LOCK: "session advisory locks",
    HELD_CURSOR: "cursors WITH HOLD",
    PREPARED: "prepared statements",
}
"""What to call the pinning ones in messages to people."""

NOTHING = 0

COMMANDS: dict[bytes, int] = {
    # sql-commands, each by its first word; of those in reading.RULES the rest decides further
    b"abort": NOTHING,
    b"alter": NOTHING,
    b"analyse": NOTHING,
    b"analyze": NOTHING,
    b"begin": NOTHING,
    b"call": CLEANING,
    b"checkpoint": NOTHING,
    b"close": RELEASING,
    b"cluster": NOTHING,
    b"comment": NOTHING,
    b"commit": NOTHING,
    b"copy": NOTHING,
    b"create": NOTHING,
    b"deallocate": RELEASING | CLEANING | STATEMENTS,
    b"declare": NOTHING,
    b"delete": NOTHING,
    b"discard": RELEASING | CLEANING,
    b"do": CLEANING,
    b"drop": RELEASING,
    b"end": NOTHING,
    b"execute": CLEANING | STATEMENTS,  # of what was prepared elsewhere
    b"explain": NOTHING,
    b"fetch": NOTHING,
    b"grant": NOTHING,
    b"import": CLEANING,  # runs a foreign data wrapper
    b"insert": NOTHING,
    b"listen": LISTENING | CLEANING,
    b"load": LOADED | CLEANING,
    b"lock": NOTHING,
    b"merge": NOTHING,
    b"move": NOTHING,
    b"notify": NOTHING,
    b"prepare": PREPARED | CLEANING | STATEMENTS,
    b"reassign": NOTHING,
    b"refresh": NOTHING,
    b"reindex": NOTHING,
    b"release": NOTHING,
    b"reset": SETTINGS | RESTORING,
    b"revoke": NOTHING,
    b"rollback": NOTHING,
    b"savepoint": NOTHING,
    b"security": NOTHING,
    b"select": NOTHING,
    b"set": SETTINGS,
    b"show": NOTHING,
    b"start": NOTHING,
    b"table": NOTHING,
    b"truncate": NOTHING,
    b"unlisten": RELEASING | CLEANING,
    b"update": NOTHING,
    b"vacuum": NOTHING,
    b"values": NOTHING,
    b"with": NOTHING,
}

CREATES: dict[bytes, int] = {
    # commands CREATE that leave more than a definition
    b"extension": CLEANING,  # runs a script
    b"language": CLEANING,  # may run the script of an extension
}

FUNCTIONS: dict[bytes, int] = {
    # functions of pg_catalog that leave more than doubt; any name neither here nor in harmless_functions is doubt
    b"pg_advisory_lock": ADVISORY_LOCK | CLEANING,
    b"pg_advisory_lock_shared": ADVISORY_LOCK | CLEANING,
    b"pg_try_advisory_lock": ADVISORY_LOCK | CLEANING,
    b"pg_try_advisory_lock_shared": ADVISORY_LOCK | CLEANING,
    b"pg_advisory_unlock": RELEASING | CLEANING,
    b"pg_advisory_unlock_shared": RELEASING | CLEANING,
    b"pg_advisory_unlock_all": RELEASING | CLEANING,
    b"pg_backup_start": LOADED | CLEANING,
    b"pg_start_backup": LOADED | CLEANING,
    b"pg_create_physical_replication_slot": LOADED | CLEANING,  # may be a temporary one
    b"pg_create_logical_replication_slot": LOADED | CLEANING,
    b"pg_copy_physical_replication_slot": LOADED | CLEANING,
    b"pg_copy_logical_replication_slot": LOADED | CLEANING,
    b"pg_replication_origin_session_setup": LOADED | CLEANING,
}

TAGS: dict[bytes, int] = {
    # tags of CommandComplete that leave something, whole or up to the next blank; the longer one decides
    b"CALL": CLEANING,
    b"CLOSE": RELEASING,
    b"DEALLOCATE": RELEASING | CLEANING,
    b"DECLARE": CLEANING,  # WITH HOLD or not: the text tells
    b"DISCARD": RELEASING | CLEANING,
    b"DISCARD ALL": RELEASING | CLEANING | SETTINGS | RESTORING,
    b"DO": CLEANING,
    b"DROP": RELEASING,
    b"LISTEN": LISTENING | CLEANING,
    b"LOAD": LOADED | CLEANING,
    b"PREPARE": PREPARED | CLEANING,
    b"PREPARE TRANSACTION": NOTHING,
    b"RESET": SETTINGS | RESTORING,
    b"SET": SETTINGS,  # also SET LOCAL and SET TRANSACTION: the text tells
    b"SET CONSTRAINTS": NOTHING,
    b"CREATE EXTENSION": CLEANING,
    b"CREATE LANGUAGE": CLEANING,
    b"IMPORT FOREIGN SCHEMA": CLEANING,
    b"UNLISTEN": RELEASING | CLEANING,
}

HARMLESS_TAGS = frozenset(
    # the first four bytes of all other tags (cmdtaglist.h); no tag in TAGS begins so
    b"SELE INSE UPDA DELE MERG BEGI COMM ROLL STAR SAVE RELE FETC MOVE COPY SHOW EXPL TRUN LOCK ANAL VACU ALTE GRAN "
    b"REVO NOTI CHEC REIN CLUS REFR SECU REAS LOGI BASE".split()
)
