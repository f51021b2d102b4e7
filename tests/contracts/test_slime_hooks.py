"""slime's own contract tests on this repository's hooks."""

import pytest

pytestmark = pytest.mark.contract

LOADED_BY_PATH = {
    "SLIME_CONTRACT_CUSTOM_RM_PATH": "self_reward_rm.reward",
    "SLIME_CONTRACT_DYNAMIC_SAMPLING_FILTER_PATH": "self_reward_rm.keep_informative",
}
AT_RUN_TIME = {
    "SLIME_CONTRACT_CUSTOM_REWARD_POST_PROCESS_PATH": "self_reward_rm.post_process",
}


@pytest.mark.parametrize(
    "file, hooks",
    [
        ("test_plugin_path_loading_contracts.py", LOADED_BY_PATH),
        ("test_plugin_runtime_hook_contracts.py", AT_RUN_TIME),
    ],
)
def test_slimes_contract_test_accepts_the_hooks(slime, file, hooks):
    path = slime.dir / "tests" / "plugin_contracts" / file
    done = slime.run("-m", "pytest", "-q", "-p", "no:cacheprovider", path, cwd=slime.dir, **hooks)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
