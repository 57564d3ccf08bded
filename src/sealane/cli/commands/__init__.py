"""One module a group of commands; each has `VERBS`, which `registry` names. Loaded only when its command runs."""
