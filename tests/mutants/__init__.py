"""Lines of adamx to break, by what they belong to."""

from tests.mutants import kernels, laws, loop, runs, storage, update

MUTATIONS = [
    *update.MUTATIONS,
    *storage.MUTATIONS,
    *kernels.MUTATIONS,
    *laws.MUTATIONS,
    *loop.MUTATIONS,
    *runs.MUTATIONS,
]
