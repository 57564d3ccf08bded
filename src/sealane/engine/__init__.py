"""The verbs: from a request to intent, store, kernel and an answer."""
