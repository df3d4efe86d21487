"""Fetching and refreshing of key material in the background, never on the request path.

addresses   the hosts and addresses that may be connected to
outcomes    the ways a fetch can end
http        one bounded GET that connects to checked addresses only
freshness   how long a response stays fresh
schedule    when to fetch next, and when keys expire
discovery   issuer metadata: finds the address of an issuer's keys
jwks        one fetch of a key set, by address or by issuer
refresher   keeps the key sets of all JWT rules current
"""
