"""Actors of one rank, in the process of the tests."""

import pytest
from doubles.ranks import actor_args, make_checkpoint, new_store

from rubric_rl.cpu.actor import Actor


@pytest.fixture(scope="module")
def hf_dir(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("hf"))


@pytest.fixture
def make_actor():
    """Makes single-rank actors in this process, one after the other."""
    actors = []

    def make(hf_dir, checkpoint=None, **changes):
        for actor in actors:
            actor.close()
        actors.append(Actor(actor_args(**changes), 0, 1, new_store()))
        actors[-1].load(hf_dir, checkpoint)
        return actors[-1]

    yield make
    for actor in actors:
        actor.close()
