"""Key material that is fetched and refreshed in the background, never on the way of a request.

addresses   which hosts and addresses may be asked at all
outcomes    how a fetch can end
http        one bounded GET, connecting to checked addresses only
freshness   how long the answer says that it holds
schedule    when to fetch next, and until when keys hold
discovery   an issuer's metadata to the address of its keys
jwks        one fetch: address or issuer to a key set
refresher   keeps the key sets of all rules current
"""
