"""Programs that other engines start, one process a call: each reads its engine's protocol, asks the daemon once and
answers. `sealane.doors` is their other half.

A call costs what its program imports: only C modules of the standard library, since `json`,
`os`, `socket`, `re` and `typing` alone would take as long as all the rest.
"""
