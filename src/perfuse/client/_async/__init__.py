"""The client for coroutines. `perfuse.client._sync` is written from it by `make client`."""
