"""Processor time and garbage collections, over the lives of several processes."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path

from flask_prod.components.metrics.instruments import Instruments
from flask_prod.components.metrics.spent import Spent
from flask_prod.components.metrics.store import FileStore

CPU = "flask_prod_cpu_seconds"
COLLECTIONS = "flask_prod_gc_collections"


def burn(seconds: float) -> None:
    """Use the processor for so long."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_spent(tmp_path: Path) -> None:
    """Each process adds its own, a forked one nothing of its parent's, and a successor goes on."""
    store = FileStore(tmp_path, "shop", lambda error: None)
    instruments = Instruments(store, 10, lambda name: None)
    spent = Spent(instruments)
    spent.look()
    before, collected = instruments.total(CPU), instruments.total(COLLECTIONS)
    child = os.fork()
    if not child:
        store.after_fork()
        spent.after_fork()
        burn(0.2)
        gc.collect()
        spent.look()
        store.close()
        os._exit(0)
    os.waitpid(child, 0)

    assert 0.2 <= instruments.total(CPU) - before < 0.2 + before
    assert 1 <= instruments.total(COLLECTIONS) - collected < 20
    burn(0.1)
    spent.look()
    spent.look()
    assert 0.3 <= instruments.total(CPU) - before < 0.4 + before
    store.close()
