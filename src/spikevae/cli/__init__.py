"""The command line: `spikevae VERB`, one verb per file. Torch is imported only by the verbs that compute."""

from .app import DONE as DONE
from .app import FAILED as FAILED
from .app import INTERRUPTED as INTERRUPTED
from .app import USAGE as USAGE
from .app import app as app
from .run import main as main
