"""Entry of the supervisor process: `python -I -S shim.py PLAN LOCK_FD READY_FD CLIENT_FD`.

Kept to a few lines because a script is compiled anew at every start; the modules it imports have cached bytecode.
The package's folder goes to the end of the path, so that nothing in site-packages can shadow the standard library.
"""

import os
import sys

sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

if __name__ == "__main__":
    from sealane.containers.supervisor import main

    main(sys.argv[1:])
