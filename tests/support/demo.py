"""The trip planner's server as `make demo` starts it, but that its guests' tokens end soon and let them delete trips."""

import runpy
import sys
from pathlib import Path

serve = runpy.run_path(str(Path(__file__).parents[2] / "examples/trip-planner/serve.py"))
main = serve["main"]
# The server tells 60 s before.
main.__globals__.update(TOKEN_LIFETIME_S=62, RIGHTS={"trip-*": "admin"})
sys.exit(main())
