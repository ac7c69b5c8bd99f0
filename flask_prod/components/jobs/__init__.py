"""The jobs room: RQ with a safe payload, an allow-list, and workers that lose nothing they accepted.

Where to look, in the order of a job's life: `tasks/` what users write, `dispatch/` how a call becomes a job that
is kept, `outbox/` the table before Redis or in its place, `redis_store/` jobs in Redis, `delivery/` what a worker
process does with one, `schedule/` cron and intervals, `operations/` what is seen and ordered, `commands/` the
command line. `backend.py` chooses where jobs lie, and `engine.py` holds all of it together. The supervisor of
worker processes is in `flask_prod.server` (`worker.py`, `crew.py`, `lookout.py`).
"""

from .component import Jobs
from .dispatch.payload import JsonSerializer
from .face import JobsFace
from .settings import JobsSettings
from .tasks.task import Dispatcher, Task

__all__ = ["Dispatcher", "Jobs", "JobsFace", "JobsSettings", "JsonSerializer", "Task"]
