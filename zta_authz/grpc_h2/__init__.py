"""Unary gRPC over HTTP/2 for a server, without I/O: bytes and the time in, events and bytes out.

Reading order, which is the order of imports:

    errors      what can go wrong, and how much of the connection it takes with it
    bounds      what a peer may ask of us: every limit with its unit, and the tally of frames that cost work
    states      the stream states as a table (RFC 9113, section 5.1)
    frames      frame layouts and the frames we write
    huffman     Huffman strings (RFC 7541, section 5.2)
    hpack       header blocks to fields (RFC 7541)
    request     fields to the head of a gRPC call, or why it is not one
    messages    length-prefixed messages and the answers, made beforehand
    reader      bytes to frames
    headers     header blocks to heads
    streams     the streams under way, and what is remembered of the others
    inbound     what calls bring, against windows and bounds
    outbound    what may be sent now, what waits for the peer's window
    calls       a call from its header block to its answer
    connection  one connection, everything joined

Nothing here opens a socket, reads a clock, logs, or knows what is asked over it.
"""
