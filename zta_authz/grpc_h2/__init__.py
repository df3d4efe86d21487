"""The server side of unary gRPC over HTTP/2, without I/O: bytes and the time in, events and bytes out.

Reading order, which is the order of imports:

    errors      error codes, and faults that end a stream or the connection
    bounds      limits of a connection with their units, and rate limits for costly frames
    states      the stream states as a table (RFC 9113, section 5.1)
    frames      frame layouts, and constructors of the frames that we send
    huffman     Huffman strings (RFC 7541, section 5.2)
    hpack       decoder of header blocks (RFC 7541)
    request     checks a request's fields, and parses them to the head of a gRPC call
    messages    length-prefixed messages, and precomputed answers
    reader      splits bytes into frames
    headers     assembles header blocks and parses them to heads
    streams     the open streams, and those reset recently
    inbound     request content: windows, limits and gRPC framing
    outbound    answers: sent at once, or once the peer's window opens
    calls       a call from its header block to its answer
    connection  one connection, made of all the above

Nothing here opens a socket, reads a clock, logs, or depends on the service that it carries.
"""
