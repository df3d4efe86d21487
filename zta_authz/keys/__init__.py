"""Fetching and refreshing of key material in the background, never on the request path.

addresses         the hosts and addresses that may be connected to
outcomes          the ways a fetch can end
http_client       one bounded GET that connects to checked addresses only
freshness         how long a response stays fresh
refresh_schedule  when to fetch next, and when keys expire
discovery         issuer metadata: finds the address of an issuer's keys
jwks              one fetch of a key set, by address or by issuer
refresher         keeps the key sets of all JWT rules current
bundle_endpoint   trust bundles from SPIFFE bundle endpoints
bundle_files      trust bundles from files
workload_api      trust bundles and the service's SVID from the SPIFFE Workload API
bundle_store      joins the trust bundles of all sources
trust             starts and stops the sources of trust bundles
"""
