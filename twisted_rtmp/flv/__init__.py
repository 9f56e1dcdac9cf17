"""FLV, as files, pipes, HTTP and the client have it."""
