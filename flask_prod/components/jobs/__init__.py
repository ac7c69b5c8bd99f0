"""The jobs room: RQ with a safe payload, an allow-list, and workers that lose nothing they accepted."""

from .component import Jobs
from .face import Dispatcher, JobsFace, Task
from .payload import JsonSerializer
from .settings import JobsSettings

__all__ = ["Dispatcher", "Jobs", "JobsFace", "JobsSettings", "JsonSerializer", "Task"]
