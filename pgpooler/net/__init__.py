"""Bytes to and from sockets: poller, ports, relay, listener, connector."""
