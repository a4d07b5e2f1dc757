"""Who holds which server connection: sessions, pools, limits, access. No sockets and no clock: time is an argument."""
