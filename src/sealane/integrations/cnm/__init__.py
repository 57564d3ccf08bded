"""Docker's integration: sealane as its remote network and IPAM driver (CNM). Docker's words stay in here."""
