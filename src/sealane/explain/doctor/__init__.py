"""The known causes of trouble, each a function from what was read to what is wrong and its hint. Pure: nothing is read
here (`sealane.linux.evidence`), and nothing is changed by anybody."""
