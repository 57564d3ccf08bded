"""The CNI executable: one process a call, so every import counts (docs/adr has the budget, tests/real measures it).

Nothing here imports anything but C modules of the standard library; `json`, `os`, `socket`, `re` and `typing` alone
would take as long as all the rest.
"""
