"""How fast Gatehouse is, compared with the least that a relay can do. See README.md; run with `make bench`."""
