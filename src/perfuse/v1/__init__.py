"""Generated stubs of `proto/perfuse/v1`; made by `make proto`, never edited."""
