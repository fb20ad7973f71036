"""Private solvers on fixed features: each is a procedure, a sequence of releases for
`sfumato.train.loop.run`."""
