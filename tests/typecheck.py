"""The run-time type checker of the tests: an int is welcome where a float is, as everywhere in
Python's typing."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
