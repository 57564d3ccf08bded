"""Rules of nftables that are not sealane's: what they may do to a packet, as far as that can be told."""
