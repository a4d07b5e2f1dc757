"""The messages that conversations are made of, in short: with the values that matter to a judge and no others."""

from __future__ import annotations

from spec.codec import Instance, backend, frontend

# --- the frontend


def query(text: bytes) -> Instance:
    """Return a Query."""
    return frontend("Query", query=text)


def parse(text: bytes, statement: bytes = b"", types: tuple[int, ...] = ()) -> Instance:
    """Return a Parse."""
    return frontend("Parse", statement=statement, query=text, types=types)


def bind(*values: bytes | None, statement: bytes = b"", portal: bytes = b"", formats: tuple[int, ...] = ()) -> Instance:
    """Return a Bind, all results in text."""
    return frontend("Bind", portal=portal, statement=statement, formats=formats, values=values, result_formats=())


def describe_statement(statement: bytes = b"") -> Instance:
    """Return a Describe of a prepared statement."""
    return frontend("Describe", kind=b"S", target=statement)


def describe_portal(portal: bytes = b"") -> Instance:
    """Return a Describe of a portal."""
    return frontend("Describe", kind=b"P", target=portal)


def execute(limit: int = 0, portal: bytes = b"") -> Instance:
    """Return an Execute."""
    return frontend("Execute", portal=portal, limit=limit)


def close_statement(statement: bytes = b"") -> Instance:
    """Return a Close of a prepared statement."""
    return frontend("Close", kind=b"S", target=statement)


def close_portal(portal: bytes = b"") -> Instance:
    """Return a Close of a portal."""
    return frontend("Close", kind=b"P", target=portal)


def function_call(*arguments: bytes | None, function: int = 177) -> Instance:
    """Return a FunctionCall, by default of int4pl."""
    return frontend("FunctionCall", function=function, formats=(), arguments=arguments, result_format=0)


def copy_data(data: bytes) -> Instance:
    """Return a CopyData of the frontend."""
    return frontend("CopyData", data=data)


def startup(minor: int = 0, **parameters: bytes) -> Instance:
    """Return a StartupMessage of somebody."""
    pairs = {b"user": b"somebody"} | {name.encode(): value for name, value in parameters.items()}
    return frontend("StartupMessage", minor=minor, parameters=tuple(pairs.items()))


def cancel(key: bytes = b"1234") -> Instance:
    """Return a CancelRequest."""
    return frontend("CancelRequest", process_id=1, key=key)


SYNC, FLUSH, TERMINATE = frontend("Sync"), frontend("Flush"), frontend("Terminate")
COPY_DONE, COPY_FAIL = frontend("CopyDone"), frontend("CopyFail", reason=b"no more")
SSL_REQUEST, GSSENC_REQUEST = frontend("SSLRequest"), frontend("GSSENCRequest")
PASSWORD = frontend("PasswordMessage", password=b"secret")
SASL_INITIAL = frontend("SASLInitialResponse", mechanism=b"SCRAM-SHA-256", data=b"n,,n=,r=1")
SASL_RESPONSE = frontend("SASLResponse", data=b"c=biws,r=12,p=1")
GSS_RESPONSE = frontend("GSSResponse", data=b"token")

# --- the backend


def described(width: int) -> Instance:
    """Return a RowDescription of so many columns."""
    return backend("RowDescription", columns=((b"column", 0, 0, 23, 4, -1, 0),) * width)


def row(width: int) -> Instance:
    """Return a DataRow of so many values."""
    return backend("DataRow", values=(b"1",) * width)


def complete(tag: bytes) -> Instance:
    """Return a CommandComplete."""
    return backend("CommandComplete", tag=tag)


def ready(status: bytes = b"I") -> Instance:
    """Return a ReadyForQuery."""
    return backend("ReadyForQuery", status=status)


def error(severity: bytes = b"ERROR", code: bytes = b"22012") -> Instance:
    """Return an ErrorResponse."""
    return backend("ErrorResponse", fields=((b"S", severity), (b"V", severity), (b"C", code), (b"M", b"no")))


def parameters(*types: int) -> Instance:
    """Return a ParameterDescription."""
    return backend("ParameterDescription", types=types)


def copy_begins(name: str, width: int = 1, format_: int = 0) -> Instance:
    """Return one of the responses that begin a COPY."""
    return backend(name, format=format_, column_formats=(format_,) * width)


def copied(data: bytes = b"1\n") -> Instance:
    """Return a CopyData of the backend."""
    return backend("CopyData", data=data)


def negotiate(minor: int, *options: bytes) -> Instance:
    """Return a NegotiateProtocolVersion."""
    return backend("NegotiateProtocolVersion", version=0x30000 + minor, options=options)


def key_data(key: bytes = b"1234") -> Instance:
    """Return a BackendKeyData."""
    return backend("BackendKeyData", process_id=1, key=key)


FATAL = error(b"FATAL", b"57P01")
PARSED, BOUND, CLOSED = backend("ParseComplete"), backend("BindComplete"), backend("CloseComplete")
NO_DATA, SUSPENDED, EMPTY = backend("NoData"), backend("PortalSuspended"), backend("EmptyQueryResponse")
COPIED_OUT = backend("CopyDone")
FUNCTION_RESULT = backend("FunctionCallResponse", result=b"3")
AUTHENTICATED = backend("AuthenticationOk")
NOTICE = backend("NoticeResponse", fields=((b"S", b"NOTICE"), (b"V", b"NOTICE"), (b"C", b"00000"), (b"M", b"look")))
NOTIFICATION = backend("NotificationResponse", process_id=1, channel=b"here", payload=b"")
PARAMETER = backend("ParameterStatus", parameter=b"application_name", setting=b"x")
