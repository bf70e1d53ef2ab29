"""The kit of servers that keep things: a database, blobs, lists, and requests done once."""
