"""Looking up users who are not listed: `auth_query`, asked on the server that the client's route leads to.

    ClientLogin -> AuthQueries.ask -> a cache, or one question for all who ask for the same user
                                   -> AuthQueryPool, a queue and at most two connections to one backend
                                   -> AuthQueryConnection, which binds the user's name to $1 -> Found, or an error

The connections belong to no client: they log in as `auth_user`, to `auth_dbname`, with settings of their own, and
count neither as server connections of a pool nor against a backend's pool_size.
"""
