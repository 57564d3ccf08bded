"""Entry of an attendant: `python -I -S execshim.py ERRAND CONNECTION_FD`. As `shim.py`."""

import os
import sys

sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

if __name__ == "__main__":
    from sealane.containers.exec_shim import main

    main(sys.argv[1:])
