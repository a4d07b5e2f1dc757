"""What must hold for the sections `tls`: the files they name can be used, and each key has an effect."""

from __future__ import annotations

from pgpooler.config.choices import ChannelBinding, TlsMode
from pgpooler.config.model import ClientTls
from pgpooler.config.reader import Read, build
from pgpooler.config.source import Sources
from pgpooler.config.tls_files import TlsProblem, backend_context, client_context


def check_tls(tls: Read | None, sources: Sources, host: str = "") -> None:
    """Read the files that a section `tls` names; `host` is the backend's."""
    if tls is None or tls.places.keys() - tls.values.keys():
        return
    if host.startswith("/"):
        sources.warn(tls.place, "'tls' has no effect: nothing is encrypted over a unix socket")
    settings = build(tls)
    doubt = ""
    try:
        if not isinstance(settings, ClientTls):
            _check_authorities(tls, settings.mode, sources)
            backend_context(settings)
        elif settings.offered:
            doubt = client_context(settings).doubt
        elif len(tls.places) > len(tls.places.keys() & {"mode"}):
            sources.warn(tls.place, "the other keys have no effect beside 'mode: disable', or without 'cert'")
    except TlsProblem as problem:
        sources.error(tls.places.get(problem.key, tls.place), problem.message)
    if doubt:
        sources.warn(tls.places["cert"], f"clients that verify PgPooler will not connect: {settings.cert}: {doubt}")


def check_channel_binding(backend: Read, sources: Sources) -> None:
    """Nothing can be bound to where nothing is encrypted."""
    if backend.values.get("channel_binding") is not ChannelBinding.REQUIRE:
        return
    tls = backend.values.get("tls")
    disabled = tls is not None and tls.values.get("mode") is TlsMode.DISABLE
    if "tls" not in backend.places or disabled or backend.values.get("host", "").startswith("/"):
        sources.error(backend.places["channel_binding"], "'channel_binding: require' needs TLS: see 'tls'")


def _check_authorities(tls: Read, mode: TlsMode, sources: Sources) -> None:
    """Who names authorities expects that certificates are looked at."""
    if "ca" in tls.places and not mode.verified:
        message = f"'ca' has no effect with 'mode: {mode}': verify-ca and verify-full look at the server's certificate"
        sources.warn(tls.places["ca"], message)
