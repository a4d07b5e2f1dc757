"""What must hold for the entries of an HBA file, and for the one method that stands in its place."""

from __future__ import annotations

from functools import partial
from typing import Final

from pgpooler.config.choices import HBA_METHODS, AuthMethod
from pgpooler.config.hba import CertificateCheck, HbaMethod
from pgpooler.config.hba_file import read_hba, read_ident
from pgpooler.config.reader import Read, Reader
from pgpooler.config.source import Sources

WITH_PASSWORD: Final = frozenset((HbaMethod.SCRAM_SHA_256, HbaMethod.MD5, HbaMethod.PASSWORD, HbaMethod.REJECT))
"""The methods under which nobody gets in who has no secret."""


def methods_of(auth: Read, reader: Reader) -> frozenset[HbaMethod]:
    """Read the files that say how clients prove who they are; the methods that some client may have to use."""
    sources, places = reader.sources, auth.places
    maps: set[str] | None = set()
    if "ident_file" in places:
        if "hba_file" not in places:
            sources.warn(places["ident_file"], "'ident_file' has no effect without 'hba_file'")
        path = auth.values.get("ident_file")
        lines = reader.lines(path, places["ident_file"], read_ident) if path else None
        auth.values["ident"] = lines or ()
        maps = None if lines is None else {line.map for line in lines}
    if "hba_file" not in places:
        return frozenset((HBA_METHODS[auth.values.get("method", AuthMethod.SCRAM_SHA_256)],))
    if "method" in places:
        sources.error(
            places["method"], "'hba_file' says how clients prove who they are; take out 'method', or the file"
        )
    errors = len(sources.errors)
    path = auth.values.get("hba_file")
    rules = reader.lines(path, places["hba_file"], partial(read_hba, maps=maps)) if path else None
    if rules == () and len(sources.errors) == errors:
        sources.error(places["hba_file"], "nobody could log in: the file has no entries")
    auth.values["hba"] = rules or ()
    # Of entries that could not be read nobody knows what they ask for.
    unknown = {HbaMethod.TRUST} if len(sources.errors) > errors else set()
    return frozenset({rule.method for rule in rules or ()} | unknown)


def check_authorities(auth: Read, tls: Read | None, sources: Sources) -> None:
    """Who asks clients for certificates must say which ones count."""
    if tls is not None and "ca" in tls.places:
        return
    asks = auth.values.get("method") is AuthMethod.CERT or any(
        rule.method is HbaMethod.CERT or rule.clientcert is not CertificateCheck.NOTHING
        for rule in auth.values.get("hba", ())
    )
    if asks:
        message = "nobody can show a certificate that counts: add 'cert' and 'ca' to the section 'tls'"
        sources.warn(auth.places.get("hba_file") or auth.places["method"], message)
